package cable_test

import (
	"context"
	"testing"
	"time"

	"go.uber.org/goleak"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"

	"github.com/sharder/sharder/integration/cable"
	"github.com/sharder/sharder/integration/etcdtest"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func TestACableCarriesAndCanBeCutAndHeld(t *testing.T) {
	c := cable.New(t, etcdtest.Start(t).Endpoint)
	kv := pb.NewKVClient(etcdtest.Conn(t, c.Addr))
	get := func(d time.Duration) error {
		ctx, cancel := context.WithTimeout(t.Context(), d)
		defer cancel()
		_, err := kv.Range(ctx, &pb.RangeRequest{Key: []byte("a")})
		return err
	}
	answers := func(when string) {
		t.Helper()
		for end := time.Now().Add(20 * time.Second); get(time.Second) != nil; {
			if time.Now().After(end) {
				t.Fatal("no answer " + when)
			}
		}
	}
	answers("at first")
	c.Cut()
	if get(300*time.Millisecond) == nil {
		t.Fatal("an answer through a cable that is cut")
	}
	c.Mend()
	answers("when mended")
	c.Hold()
	if get(300*time.Millisecond) == nil {
		t.Fatal("an answer through a cable that is held")
	}
	c.Release()
	answers("when released")
}
