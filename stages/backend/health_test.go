package backend

import (
	"context"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/sourcegraph/conc"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/peer"
	"google.golang.org/grpc/status"

	"github.com/sharder/sharder/integration/etcdproc"
	"github.com/sharder/sharder/stages"
	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
)

// reader reads one key all the time, linearizably, several readers at once.
type reader struct {
	reads, failed atomic.Int64
	slowest       atomic.Int64 // ns, since the last reset
	last          atomic.Pointer[error]
	stop          func()
}

// read starts reading until the test ends or stop is called.
func read(t *testing.T, c *Cluster) *reader {
	t.Helper()
	r := &reader{}
	ctx, cancel := context.WithCancel(context.Background())
	var wg conc.WaitGroup
	for range 6 {
		wg.Go(func() {
			for ctx.Err() == nil {
				began := time.Now()
				step, done := context.WithTimeout(context.Background(), 20*time.Second)
				_, err := pb.NewKVClient(c).Range(step, &pb.RangeRequest{Key: []byte("k")})
				done()
				r.reads.Add(1)
				if err != nil {
					r.failed.Add(1)
					r.last.Store(&err)
				}
				for took := int64(time.Since(began)); ; {
					old := r.slowest.Load()
					if took <= old || r.slowest.CompareAndSwap(old, took) {
						break
					}
				}
			}
		})
	}
	r.stop = func() { cancel(); wg.Wait() }
	t.Cleanup(r.stop)
	return r
}

// quick checks that, for a while, every read is answered at once and none fails.
func (r *reader) quick(t *testing.T, when string) {
	t.Helper()
	time.Sleep(300 * time.Millisecond) // reads that began before may end
	r.slowest.Store(0)
	failed, reads := r.failed.Load(), r.reads.Load()
	time.Sleep(1500 * time.Millisecond)
	if took := time.Duration(r.slowest.Load()); took > time.Second {
		t.Errorf("%s: a read took %v", when, took)
	}
	if now := r.failed.Load(); now != failed {
		t.Errorf("%s: %d reads failed, the last with %v", when, now-failed, *r.last.Load())
	}
	if r.reads.Load() == reads {
		t.Errorf("%s: nothing was read", when)
	}
}

// member is what the cluster knows of the one at an endpoint.
func memberAt(c *Cluster, endpoint string) MemberStatus {
	for _, m := range c.Members() {
		if strings.HasSuffix(endpoint, m.Endpoint) {
			return m
		}
	}
	return MemberStatus{}
}

func TestAMemberCutOffFromTheOthersIsLeftAndComesBack(t *testing.T) {
	t.Parallel()
	p := etcdproc.Start(t, 3, etcdproc.WithCables())
	c := open(t, Options{Endpoints: p.Endpoints(), HealthInterval: time.Second})
	eventually(t, 10*time.Second, "all answer", func() bool { return leaders(c) == 1 && allUp(c) })
	victim := p.Follower()
	r := read(t, c)
	r.quick(t, "at first")
	began := time.Now()
	p.Isolate(victim)
	eventually(t, 10*time.Second, "it has no leader", func() bool { return memberAt(c, p.Endpoint(victim)).NoLeader })
	t.Logf("left after %v", time.Since(began))
	time.Sleep(patience + 2*time.Second) // by then what waited for it has been asked of another one
	r.quick(t, "while one is cut off")
	if !memberAt(c, p.Endpoint(victim)).Healthy {
		t.Error("it does not answer: the test shows nothing")
	}
	p.Reconnect()
	eventually(t, 20*time.Second, "it has a leader again", func() bool { return !memberAt(c, p.Endpoint(victim)).NoLeader })
	answersAgain(t, c, p.Endpoint(victim))
	if n := r.failed.Load(); n > 0 {
		t.Errorf("%d of %d reads failed, the last with %v", n, r.reads.Load(), *r.last.Load())
	}
}

// answersAgain waits until calls reach a member.
func answersAgain(t *testing.T, c *Cluster, endpoint string) {
	t.Helper()
	eventually(t, 10*time.Second, "calls reach "+endpoint, func() bool {
		var at peer.Peer
		_, err := pb.NewKVClient(c).Range(within(t, 5*time.Second), &pb.RangeRequest{Key: []byte("k")}, grpc.Peer(&at))
		return err == nil && strings.HasSuffix(endpoint, at.Addr.String())
	})
}

// A member that hears the leader and is not heard believes that all is well; what it
// should ask the leader is never answered.
func TestAMemberThatAnswersProbesAndServesNothingIsLeftAndComesBack(t *testing.T) {
	t.Parallel()
	p := etcdproc.Start(t, 3, etcdproc.WithCables())
	c := open(t, Options{Endpoints: p.Endpoints(), HealthInterval: time.Second})
	eventually(t, 10*time.Second, "all answer", func() bool { return leaders(c) == 1 && allUp(c) })
	victim := p.Follower()
	watch := watchKey(t, stages.Ask(within(t, time.Minute), stages.Want{Member: memberAt(c, p.Endpoint(victim)).Endpoint}), c, "k")
	r := read(t, c)
	r.quick(t, "at first")
	began := time.Now()
	p.Mute(victim)
	eventually(t, 15*time.Second, "it is found not to serve", func() bool { return memberAt(c, p.Endpoint(victim)).Stalled })
	t.Logf("left after %v", time.Since(began))
	if s := memberAt(c, p.Endpoint(victim)); !s.Healthy || s.NoLeader {
		t.Errorf("it should seem well: %+v", s)
	}
	if _, err := watch.Recv(); status.Code(err) != codes.Unavailable {
		t.Errorf("what waited for it goes on: %v", err)
	}
	r.quick(t, "while one serves nothing")
	p.Reconnect()
	eventually(t, 20*time.Second, "it serves again", func() bool { return !memberAt(c, p.Endpoint(victim)).Stalled })
	answersAgain(t, c, p.Endpoint(victim))
	if n := r.failed.Load(); n > 0 {
		t.Errorf("%d of %d reads failed, the last with %v", n, r.reads.Load(), *r.last.Load())
	}
}

func TestALearnerIsAskedLast(t *testing.T) {
	t.Parallel()
	p := etcdproc.Start(t, 1)
	i, url := p.Spare()
	if _, err := p.Client().MemberAddAsLearner(within(t, 10*time.Second), []string{url}); err != nil {
		t.Fatal(err)
	}
	p.Launch(i)
	c := open(t, Options{Endpoints: p.Endpoints()})
	eventually(t, 20*time.Second, "the learner answers", func() bool { m := memberAt(c, p.Endpoint(i)); return m.Healthy && m.Learner })
	for range 20 {
		if err := put(within(t, 5*time.Second), c, "k", "v"); err != nil {
			t.Fatal(err)
		}
		watchKey(t, within(t, 5*time.Second), c, "k")
	}
	// Nobody has probed it yet: it is asked by chance, refuses, and another one is asked.
	blind, err := Open(Options{Name: "a", Endpoints: []string{p.Endpoint(i), p.Endpoint(0)}})
	if err != nil {
		t.Fatal(err)
	}
	defer blind.Close()
	for range 4 {
		if err := put(within(t, 20*time.Second), blind, "k", "v"); err != nil {
			t.Fatal(err)
		}
		s, err := pb.NewKVClient(blind).RangeStream(within(t, 5*time.Second), &pb.RangeRequest{Key: []byte("k")})
		if err == nil {
			_, err = s.Recv()
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	alone := open(t, Options{Endpoints: []string{p.Endpoint(i)}})
	wantStatus(t, put(within(t, 10*time.Second), alone, "k", "v"), codes.FailedPrecondition, "etcdserver: rpc not supported for learner")
	p.Kill(0)
	eventually(t, 10*time.Second, "the learner is all there is", func() bool { return !memberAt(c, p.Endpoint(0)).Healthy })
	if _, err := pb.NewKVClient(c).Range(within(t, 5*time.Second), &pb.RangeRequest{Key: []byte("k"), Serializable: true}); err != nil {
		t.Errorf("what a learner can do: %v", err)
	}
}

func TestATotalOutageFailsAtOnceAndItsEndIsNoticedAtOnce(t *testing.T) {
	t.Parallel()
	p := etcdproc.Start(t, 3)
	c := open(t, Options{Endpoints: p.Endpoints(), HealthInterval: time.Second})
	if err := put(within(t, 10*time.Second), c, "k", "v"); err != nil {
		t.Fatal(err)
	}
	for i := range p.Len() {
		p.Kill(i)
	}
	eventually(t, 5*time.Second, "known down", func() bool { return !c.Healthy() })
	time.Sleep(5 * time.Second) // long enough for pauses to have grown
	began := time.Now()
	for range 100 {
		if err := put(within(t, 10*time.Second), c, "k", "w"); status.Code(err) != codes.Unavailable {
			t.Fatal(err)
		}
	}
	if took := time.Since(began); took > 10*time.Second { // a wait for a probe each would take five times that
		t.Fatalf("100 calls failed within %v", took)
	}
	for i := range p.Len() {
		p.Launch(i)
	}
	p.Leader() // from now on it serves
	began = time.Now()
	eventually(t, 10*time.Second, "the end of the outage is noticed", func() bool {
		_, err := get(within(t, 5*time.Second), c, "k")
		return err == nil
	})
	if took := time.Since(began); took > time.Second {
		t.Errorf("noticed after %v", took)
	}
}

// etcd from 3.6 on tells by its health service that it defragments, if it is told to
// (StopGRPCServiceOnDefrag).
func TestAMemberThatDefragmentsIsLeft(t *testing.T) {
	t.Parallel()
	p := etcdproc.Start(t, 3, etcdproc.WithArgs("--feature-gates=StopGRPCServiceOnDefrag=true", "--quota-backend-bytes=8589934592"))
	c := open(t, Options{Endpoints: p.Endpoints(), HealthInterval: 100 * time.Millisecond})
	eventually(t, 10*time.Second, "all answer", func() bool { return leaders(c) == 1 && allUp(c) })
	fatten(t, c, 300)
	victim := p.Endpoint(p.Follower())
	r := read(t, c)
	began := time.Now()
	done := make(chan error, 1)
	var wg conc.WaitGroup
	wg.Go(func() { // past sharder
		_, err := p.Client().Defragment(within(t, time.Minute), victim)
		done <- err
	})
	defer wg.Wait()
	told := false
	for running := true; running; {
		select {
		case err := <-done:
			if running = false; err != nil {
				t.Fatal(err)
			}
		case <-time.After(5 * time.Millisecond):
			m := memberAt(c, victim)
			told = told || !m.Healthy && strings.Contains(m.Err.Error(), "NOT_SERVING")
		}
	}
	took := time.Since(began)
	t.Logf("the defragmentation took %v, the slowest read %v", took, time.Duration(r.slowest.Load()))
	if !told {
		t.Error("nobody noticed")
	}
	if slowest := time.Duration(r.slowest.Load()); slowest > patience+2*time.Second {
		t.Errorf("a read waited %v for the end of it", slowest)
	}
	answersAgain(t, c, victim)
	if n := r.failed.Load(); n > 0 {
		t.Errorf("%d of %d reads failed, the last with %v", n, r.reads.Load(), *r.last.Load())
	}
}

// fatten writes so many values of a megabyte.
func fatten(t *testing.T, c *Cluster, n int) {
	t.Helper()
	value := strings.Repeat("x", 1<<20)
	for i := range n {
		if err := put(within(t, 30*time.Second), c, "fill/"+string(rune('a'+i%20)), value); err != nil {
			t.Fatal(err)
		}
	}
}

// What sharder passes on itself needs no sign from etcd.
func TestAMemberThatIsAskedToDefragmentIsAskedNothingElse(t *testing.T) {
	t.Parallel()
	p := etcdproc.Start(t, 3)
	c := open(t, Options{Endpoints: p.Endpoints()})
	eventually(t, 10*time.Second, "all answer", func() bool { return leaders(c) == 1 && allUp(c) })
	fatten(t, c, 300)
	victim := memberAt(c, p.Endpoint(p.Follower())).Endpoint
	done := make(chan error, 1)
	var wg conc.WaitGroup
	wg.Go(func() {
		ctx := stages.Ask(within(t, time.Minute), stages.Want{Member: victim})
		_, err := pb.NewMaintenanceClient(c).Defragment(ctx, &pb.DefragmentRequest{})
		done <- err
	})
	defer wg.Wait()
	m := c.roster.Load().find(endpoint{addr: victim})
	eventually(t, 5*time.Second, "it is under way", func() bool { return m.defrags.Load() == 1 })
	reads, longest := 0, time.Duration(0)
	for running := true; running; reads++ {
		began := time.Now()
		if _, err := get(within(t, 10*time.Second), c, "fill/a"); err != nil {
			t.Fatal(err)
		}
		longest = max(longest, time.Since(began))
		select {
		case err := <-done:
			if running = false; err != nil {
				t.Fatal(err)
			}
		default:
		}
	}
	t.Logf("%d reads meanwhile, the longest %v", reads, longest)
	if longest > 2*time.Second || m.defrags.Load() != 0 {
		t.Errorf("a read took %v", longest)
	}
	answersAgain(t, c, victim)
}

// A member answers no probe while it defragments (Status reads the database), and so is taken
// for frozen if that takes long. What it was asked for goes on all the same.
func TestADefragmentationIsWaitedForHoweverLongItsMemberIsSilent(t *testing.T) {
	t.Parallel()
	p := etcdproc.Start(t, 3)
	c := open(t, Options{Endpoints: p.Endpoints()})
	eventually(t, 10*time.Second, "all answer", func() bool { return leaders(c) == 1 && allUp(c) })
	victim := p.Follower()
	m := c.roster.Load().find(endpoint{addr: memberAt(c, p.Endpoint(victim)).Endpoint})
	p.Pause(victim) // so that it can be looked at in the middle
	done := make(chan error, 1)
	var wg conc.WaitGroup
	wg.Go(func() {
		ctx := stages.Ask(within(t, time.Minute), stages.Want{Member: m.endpoint})
		_, err := pb.NewMaintenanceClient(c).Defragment(ctx, &pb.DefragmentRequest{})
		done <- err
	})
	defer wg.Wait()
	eventually(t, 10*time.Second, "it is taken for frozen", func() bool { return m.defrags.Load() == 1 && m.now().health == down })
	select {
	case err := <-done:
		t.Fatalf("it was given up: %v", err)
	case <-time.After(500 * time.Millisecond):
	}
	p.Resume(victim)
	if err := <-done; err != nil {
		t.Error(err)
	}
}
