package backend

import (
	"fmt"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/sourcegraph/conc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/sharder/sharder/integration/etcdproc"
	"github.com/sharder/sharder/stages"
	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"
)

// A member that comes back from a pause has a lot to apply, and refuses what writes until
// it has. Nothing was done about such a write: another member takes it.
func TestAMemberWithTooMuchToDoIsSpared(t *testing.T) {
	t.Parallel()
	p := etcdproc.Start(t, 3, etcdproc.WithArgs("--snapshot-count=100000")) // or it would get a snapshot
	c := open(t, Options{Endpoints: p.Endpoints()})
	eventually(t, 30*time.Second, "all answer", func() bool { return leaders(c) == 1 && allUp(c) })
	victim := p.Follower()
	before, others := p.Elections(), p.Elections(victim)
	endpoint := memberAt(c, p.Endpoint(victim)).Endpoint
	p.Pause(victim)
	eventually(t, 30*time.Second, "it is noticed", func() bool { return !allUp(c) })
	var wg conc.WaitGroup
	var met atomic.Pointer[error] // what etcd said of an election
	write := func(when, key string) {
		switch err := put(within(t, 30*time.Second), c, key, "v"); {
		case etcdproc.ElectionError(err):
			met.Store(&err)
		case err != nil:
			t.Errorf("%s: %v", when, err)
		}
	}
	for w := range 32 {
		wg.Go(func() {
			for i := range 400 {
				write("while it is frozen", fmt.Sprintf("%d/%d", w, i))
			}
		})
	}
	wg.Wait()
	if err := met.Load(); err != nil && p.Elections(victim) == others {
		t.Errorf("while it is frozen: %v", *err)
	}
	p.Resume(victim)
	refusals, done := 0, time.Now().Add(4*time.Second)
	wg.Go(func() { // those who want this one are told
		for time.Now().Before(done) {
			err := put(stages.Ask(within(t, 30*time.Second), stages.Want{Member: endpoint}), c, "k", "v")
			if err != nil && strings.Contains(err.Error(), rpctypes.ErrorDesc(rpctypes.ErrGRPCRequestTooManyRequests)) {
				refusals++
			}
		}
	})
	for w := range 4 {
		wg.Go(func() {
			for i := 0; time.Now().Before(done); i++ {
				write("when it is back", fmt.Sprintf("%d/%d", w, i))
			}
		})
	}
	wg.Wait()
	if err := met.Load(); err != nil && p.Elections() == before {
		t.Errorf("when it is back: %v", *err)
	}
	t.Logf("%d refusals to those who wanted this one", refusals)
}

func TestRefusalsThatAnotherMemberMayNotShareAreTold(t *testing.T) {
	m := newMember(1, endpoint{addr: "h:1"}, nil, unmetered{})
	for err, want := range map[error]bool{
		nil: false, rpctypes.ErrGRPCNotSupportedForLearner: true, rpctypes.ErrGRPCRequestTooManyRequests: true,
		status.Error(codes.Unknown, rpctypes.ErrorDesc(rpctypes.ErrGRPCRequestTooManyRequests)): true, rpctypes.ErrGRPCNoLeader: false, rpctypes.ErrGRPCTimeout: false,
	} {
		m.change(func(c *condition) { c.avoid = time.Time{} })
		if have := m.refused(err); have != want || m.now().able() == want {
			t.Errorf("%v: %v", err, have)
		}
	}
}
