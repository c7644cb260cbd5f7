package backend

import (
	"testing"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/sharder/sharder/integration/cable"
	"github.com/sharder/sharder/integration/etcdtest"
)

// Where nothing is probed for a long time a connection's own pings notice that nobody is
// at the other end.
func TestAConnectionThatLeadsNowhereIsGivenUp(t *testing.T) {
	t.Parallel()
	e := etcdtest.Start(t)
	for _, c := range []struct {
		what  string
		pause time.Duration
		want  bool
	}{{"by default", 0, true}, {"without pings", -1, false}} {
		t.Run(c.what, func(t *testing.T) {
			t.Parallel()
			line := cable.New(t, e.Endpoint)
			o := Options{Endpoints: []string{line.Addr}, HealthInterval: time.Hour, KeepaliveTime: c.pause}
			w := watchKey(t, within(t, 2*time.Minute), serving(t, o), "k")
			began := time.Now()
			line.Hold()
			ended := make(chan error, 1)
			time.AfterFunc(0, func() {
				_, err := w.Recv()
				ended <- err
			})
			select {
			case err := <-ended:
				if took := time.Since(began); !c.want || status.Code(err) != codes.Unavailable || took < 9*time.Second {
					t.Errorf("after %v: %v", took, err)
				}
			case <-time.After(map[bool]time.Duration{true: time.Minute, false: 17 * time.Second}[c.want]): // ten, three, and some
				if c.want {
					t.Error("it is not noticed")
				}
			}
			line.Release()
		})
	}
}
