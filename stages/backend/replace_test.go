package backend

import (
	"context"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/sourcegraph/conc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/sharder/sharder/integration/etcdproc"
	"github.com/sharder/sharder/integration/etcdtest"
	"github.com/sharder/sharder/stages"
	"go.etcd.io/etcd/server/v3/etcdserver/api/v3lock/v3lockpb"
)

// endpointsAre reports whether these are the members there are, in this order.
func endpointsAre(c *Cluster, want ...string) bool {
	var have []string
	for _, m := range c.Members() {
		have = append(have, "http://"+m.Endpoint)
	}
	return fmt.Sprint(have) == fmt.Sprint(want)
}

func TestMembersComeAndGoUnderLoadAndCostNothing(t *testing.T) {
	t.Parallel()
	p := etcdproc.Start(t, 3)
	all := p.Endpoints()
	c := open(t, Options{Endpoints: all[:1]})
	l := during(t, p, c, func() {
		for i := range 12 {
			stays := c.roster.Load().seats[0].member
			want := [][]string{all, all[:1], {all[0], all[2]}, all[:2]}[i%4]
			if err := c.Replace(want); err != nil {
				t.Fatal(err)
			}
			eventually(t, 30*time.Second, "the members are others", func() bool { return endpointsAre(c, want...) })
			if c.roster.Load().seats[0].member != stays {
				t.Error("a member that stays has another connection")
			}
			time.Sleep(100 * time.Millisecond)
		}
	})
	if n := len(l.failed); n > 0 {
		t.Errorf("%d writes failed, and no member did", n)
	}
	if err := c.Replace([]string{"nowhere"}); err == nil || !endpointsAre(c, all[:2]...) {
		t.Errorf("a slip is taken: %v", err)
	}
}

func TestWhatIsUnderWayOnAMemberThatGoesMayEndWithinABound(t *testing.T) {
	t.Parallel()
	p := etcdproc.Start(t, 3)
	all := p.Endpoints()
	c := open(t, Options{Endpoints: all})
	eventually(t, 30*time.Second, "all answer", func() bool { return allUp(c) })
	var held *v3lockpb.LockResponse
	p.Despite(func() (err error) {
		held, err = v3lockpb.NewLockClient(c).Lock(within(t, 30*time.Second), &v3lockpb.LockRequest{Name: []byte("l")})
		return err
	})
	there := func() context.Context {
		return stages.Ask(within(t, time.Minute), stages.Want{Member: strings.TrimPrefix(all[0], "http://")})
	}
	watch := watchKey(t, there(), c, "k")
	waiting := make(chan error, 1)
	var wg conc.WaitGroup
	defer wg.Wait()
	wg.Go(func() {
		_, err := v3lockpb.NewLockClient(c).Lock(there(), &v3lockpb.LockRequest{Name: []byte("l")})
		waiting <- err
	})
	gone := c.roster.Load().seats[0].member
	eventually(t, 30*time.Second, "both are under way", func() bool { return gone.busy.Load() == 2 })
	time.Sleep(200 * time.Millisecond)
	c.grace = 5 * time.Second // the lock has to come about within it
	began := time.Now()
	var ended error
	var took time.Duration
	wg.Go(func() {
		_, ended = watch.Recv()
		took = time.Since(began)
	})
	if err := c.Replace(all[1:]); err != nil {
		t.Fatal(err)
	}
	eventually(t, 30*time.Second, "it has gone", func() bool { return endpointsAre(c, all[1:]...) })
	p.Despite(func() error {
		_, err := v3lockpb.NewLockClient(c).Unlock(within(t, 30*time.Second), &v3lockpb.UnlockRequest{Key: held.Key})
		return err
	})
	if err := <-waiting; err != nil {
		t.Errorf("the call under way: %v", err)
	}
	wg.Wait()
	if took < c.grace || took > retirePeriod-time.Millisecond*500 {
		t.Errorf("the stream ended after %v", took)
	}
	wantStatus(t, ended, codes.Unavailable, "sharder: shard a: member "+gone.endpoint+": it is no longer one of the endpoints")
	if _, _, err := statusAt(t, c, stages.Want{Member: gone.endpoint}); status.Code(err) != codes.NotFound {
		t.Errorf("it is still known: %v", err)
	}
	eventually(t, 30*time.Second, "its connection is closed", func() bool { return gone.conn.GetState().String() == "SHUTDOWN" })
	if gone.enter("") {
		t.Error("it still takes calls")
	}
}

func TestMembersAreNotReplacedByThoseOfAnotherCluster(t *testing.T) {
	t.Parallel()
	p, other := etcdproc.Start(t, 1), etcdtest.Start(t)
	c := open(t, Options{Endpoints: p.Endpoints()})
	eventually(t, 30*time.Second, "it tells who it is", func() bool { return leaders(c) == 1 })
	if err := c.Replace([]string{other.Endpoint}); err != nil {
		t.Fatal(err)
	}
	eventually(t, 30*time.Second, "the other one is looked at", func() bool { return memberAt(c, other.Endpoint).Err != nil })
	if m := memberAt(c, other.Endpoint); !strings.Contains(m.Err.Error(), "it is a member of another cluster") || !memberAt(c, p.Endpoint(0)).Healthy {
		t.Errorf("%+v", c.Members())
	}
	if err := put(within(t, 30*time.Second), c, "k", "v"); err != nil {
		t.Error(err)
	}
	if r, err := other.Client().Get(within(t, 30*time.Second), "k"); err != nil || r.Count > 0 {
		t.Errorf("a key is on the wrong cluster: %v, %v", r, err)
	}
}

// A slip in a file, or in DNS, is no reason to leave members that answer.
func TestMembersGoWhenOneOfThoseThatStayAnswers(t *testing.T) {
	t.Parallel()
	p := etcdproc.Start(t, 3)
	all := p.Endpoints()
	p.Kill(2)
	p.Leader()
	c := open(t, Options{Endpoints: all[:2]})
	eventually(t, 30*time.Second, "both answer", func() bool { return allUp(c) })
	p.Despite(func() error { return put(within(t, 30*time.Second), c, "k", "v") }) // the election is over
	before := p.Elections()
	if err := c.Replace(all[2:]); err != nil {
		t.Fatal(err)
	}
	eventually(t, 30*time.Second, "they stay beside the new one", func() bool { return endpointsAre(c, all[2], all[0], all[1]) })
	for range 20 {
		if err := put(within(t, 30*time.Second), c, "k", "v"); err != nil && !(etcdproc.ElectionError(err) && p.Elections() != before) {
			t.Fatal(err)
		}
		time.Sleep(50 * time.Millisecond)
	}
	p.Start(2)
	eventually(t, 30*time.Second, "they go", func() bool { return endpointsAre(c, all[2]) })
	p.Despite(func() error { return put(within(t, 30*time.Second), c, "k", "v") })
	// None of the old and of the new answers: nothing of the old is kept for ever.
	for i := range p.Len() {
		p.Kill(i)
	}
	eventually(t, 30*time.Second, "all are gone", func() bool { return !c.Healthy() })
	if err := c.Replace(all[:1]); err != nil {
		t.Fatal(err)
	}
	eventually(t, 30*time.Second, "only the new one is left", func() bool { return endpointsAre(c, all[0]) })
}

func TestATrailGoesOverMembersThatComeAndGo(t *testing.T) {
	t.Parallel()
	ctx, trail := stages.WithTrail(context.Background())
	if stages.TrailOf(ctx) != trail {
		t.Fatal("another trail")
	}
	trail.Answered(1, []uint64{1, 2, 3})
	trail.Answered(2, []uint64{1, 2, 70})
	if !trail.Asked(1) || !trail.Asked(2) || trail.Asked(3) || trail.Asked(70) {
		t.Error("1 and 2 have answered")
	}
	trail.Answered(70, []uint64{70, 1})
	if trail.Asked(1) || !trail.Asked(70) {
		t.Error("all there are have answered: it starts over")
	}
}
