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
	p             *etcdproc.Cluster
	to            []int // members that something is done to
	elections     int   // on the others, when it began
	reads, failed atomic.Int64
	met           atomic.Int64 // reads that failed, and met an election as they say
	slowest       atomic.Int64 // ns
	last          atomic.Pointer[error]
	stop          func()
}

// read starts reading until the test ends or stop is called, while something is done to members of p.
func read(t *testing.T, p *etcdproc.Cluster, c *Cluster, to ...int) *reader {
	t.Helper()
	r := &reader{p: p, to: to, elections: p.Elections(to...)}
	ctx, cancel := context.WithCancel(context.Background())
	var wg conc.WaitGroup
	for range 6 {
		wg.Go(func() {
			for ctx.Err() == nil {
				began := time.Now()
				step, done := context.WithTimeout(context.Background(), 30*time.Second)
				_, err := pb.NewKVClient(c).Range(step, &pb.RangeRequest{Key: []byte("k")})
				done()
				r.reads.Add(1)
				switch {
				case err == nil:
				case etcdproc.ElectionError(err):
					r.met.Add(1)
					r.last.Store(&err)
				default:
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

// avoid checks that, for a while, no read waits for a member that is left, once those that began before have
// been asked of another one, and that the others answer. A read that is sent there waits for seconds.
func (r *reader) avoid(t *testing.T, left *member) {
	t.Helper()
	eventually(t, 30*time.Second, "what waited for it is asked of another one", func() bool { return left.calls.Load() == 0 })
	reads, waited := r.reads.Load(), false
	for end := time.Now().Add(time.Second); time.Now().Before(end) || r.reads.Load() < reads+50; time.Sleep(5 * time.Millisecond) {
		waited = waited || left.calls.Load() > 0
		if time.Now().After(end.Add(30 * time.Second)) {
			t.Fatalf("%d reads within half a minute", r.reads.Load()-reads)
		}
	}
	if waited && r.p.Elections(r.to...) == r.elections { // or the others were no better
		t.Error("reads are sent to the member that is left")
	}
}

// check checks that no read has failed, unless it met an election that nobody had asked for.
func (r *reader) check(t *testing.T) {
	t.Helper()
	failed := r.failed.Load()
	if r.p.Elections(r.to...) == r.elections {
		failed += r.met.Load()
	}
	if failed > 0 {
		t.Errorf("%d of %d reads failed, the last with %v", failed, r.reads.Load(), *r.last.Load())
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
	eventually(t, 30*time.Second, "all answer", func() bool { return leaders(c) == 1 && allUp(c) })
	victim := p.Follower()
	m := c.roster.Load().find(endpoint{addr: memberAt(c, p.Endpoint(victim)).Endpoint})
	r := read(t, p, c, victim)
	answersAgain(t, c, p.Endpoint(victim))
	began := time.Now()
	p.Isolate(victim)
	eventually(t, 30*time.Second, "it has no leader", func() bool { return memberAt(c, p.Endpoint(victim)).NoLeader })
	t.Logf("left after %v", time.Since(began))
	r.avoid(t, m)
	eventually(t, 30*time.Second, "it answers, or the test shows nothing", func() bool { return memberAt(c, p.Endpoint(victim)).Healthy })
	p.Reconnect()
	eventually(t, 30*time.Second, "it has a leader again", func() bool { return !memberAt(c, p.Endpoint(victim)).NoLeader })
	answersAgain(t, c, p.Endpoint(victim))
	r.check(t)
}

// answersAgain waits until calls reach a member.
func answersAgain(t *testing.T, c *Cluster, endpoint string) {
	t.Helper()
	eventually(t, 30*time.Second, "calls reach "+endpoint, func() bool {
		var at peer.Peer
		_, err := pb.NewKVClient(c).Range(within(t, 30*time.Second), &pb.RangeRequest{Key: []byte("k")}, grpc.Peer(&at))
		return err == nil && strings.HasSuffix(endpoint, at.Addr.String())
	})
}

// A member that hears the leader and is not heard believes that all is well; what it
// should ask the leader is never answered.
func TestAMemberThatAnswersProbesAndServesNothingIsLeftAndComesBack(t *testing.T) {
	t.Parallel()
	p := etcdproc.Start(t, 3, etcdproc.WithCables())
	c := open(t, Options{Endpoints: p.Endpoints(), HealthInterval: time.Second})
	eventually(t, 30*time.Second, "all answer", func() bool { return leaders(c) == 1 && allUp(c) })
	victim := p.Follower()
	watch := watchKey(t, stages.Ask(within(t, time.Minute), stages.Want{Member: memberAt(c, p.Endpoint(victim)).Endpoint}), c, "k")
	m := c.roster.Load().find(endpoint{addr: memberAt(c, p.Endpoint(victim)).Endpoint})
	r := read(t, p, c, victim)
	answersAgain(t, c, p.Endpoint(victim))
	began := time.Now()
	p.Mute(victim)
	var s MemberStatus
	eventually(t, 30*time.Second, "it is found not to serve", func() bool { s = memberAt(c, p.Endpoint(victim)); return s.Stalled })
	t.Logf("left after %v", time.Since(began))
	if !s.Healthy || s.NoLeader {
		t.Errorf("it should seem well: %+v", s)
	}
	if _, err := watch.Recv(); status.Code(err) != codes.Unavailable {
		t.Errorf("what waited for it goes on: %v", err)
	}
	r.avoid(t, m)
	p.Reconnect()
	eventually(t, 30*time.Second, "it serves again", func() bool { return !memberAt(c, p.Endpoint(victim)).Stalled })
	answersAgain(t, c, p.Endpoint(victim))
	r.check(t)
}

func TestALearnerIsAskedLast(t *testing.T) {
	t.Parallel()
	p := etcdproc.Start(t, 1)
	i, url := p.Spare()
	if _, err := p.Client().MemberAddAsLearner(within(t, 30*time.Second), []string{url}); err != nil {
		t.Fatal(err)
	}
	p.Launch(i)
	c := open(t, Options{Endpoints: p.Endpoints()})
	eventually(t, 30*time.Second, "the learner answers", func() bool { m := memberAt(c, p.Endpoint(i)); return m.Healthy && m.Learner })
	for range 20 {
		if err := put(within(t, 30*time.Second), c, "k", "v"); err != nil {
			t.Fatal(err)
		}
		watchKey(t, within(t, 30*time.Second), c, "k")
	}
	// Nobody has probed it yet: it is asked by chance, refuses, and another one is asked.
	blind, err := Open(Options{Name: "a", Endpoints: []string{p.Endpoint(i), p.Endpoint(0)}})
	if err != nil {
		t.Fatal(err)
	}
	defer blind.Close()
	for range 4 {
		if err := put(within(t, 30*time.Second), blind, "k", "v"); err != nil {
			t.Fatal(err)
		}
		s, err := pb.NewKVClient(blind).RangeStream(within(t, 30*time.Second), &pb.RangeRequest{Key: []byte("k")})
		if err == nil {
			_, err = s.Recv()
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	alone := serving(t, Options{Endpoints: []string{p.Endpoint(i)}})
	wantStatus(t, put(within(t, 30*time.Second), alone, "k", "v"), codes.FailedPrecondition, "etcdserver: rpc not supported for learner")
	p.Kill(0)
	eventually(t, 30*time.Second, "the learner is all there is", func() bool { return !memberAt(c, p.Endpoint(0)).Healthy })
	if _, err := pb.NewKVClient(c).Range(within(t, 30*time.Second), &pb.RangeRequest{Key: []byte("k"), Serializable: true}); err != nil {
		t.Errorf("what a learner can do: %v", err)
	}
}

func TestATotalOutageFailsAtOnceAndItsEndIsNoticedAtOnce(t *testing.T) {
	t.Parallel()
	p := etcdproc.Start(t, 3)
	c := serving(t, Options{Endpoints: p.Endpoints(), HealthInterval: time.Second})
	p.Despite(func() error { return put(within(t, 30*time.Second), c, "k", "v") })
	for i := range p.Len() {
		p.Kill(i)
	}
	eventually(t, 30*time.Second, "known down", func() bool { return !c.Healthy() })
	time.Sleep(5 * time.Second) // long enough for pauses to have grown
	began := time.Now()
	for range 100 {
		if err := put(within(t, 30*time.Second), c, "k", "w"); status.Code(err) != codes.Unavailable {
			t.Fatal(err)
		}
	}
	if took := time.Since(began); took > 20*time.Second { // a wait for a probe each would take more than twice that
		t.Fatalf("100 calls failed within %v", took)
	}
	for i := range p.Len() {
		p.Launch(i)
	}
	p.Leader() // from now on it serves
	began = time.Now()
	eventually(t, 30*time.Second, "the end of the outage is noticed", func() bool {
		_, err := get(within(t, 30*time.Second), c, "k")
		return err == nil
	})
	if took := time.Since(began); took > 3*time.Second { // pauses that double take longer by now
		t.Errorf("noticed after %v", took)
	}
}

// etcd from 3.6 on tells by its health service that it defragments, if it is told to
// (StopGRPCServiceOnDefrag).
func TestAMemberThatDefragmentsIsLeft(t *testing.T) {
	t.Parallel()
	p := etcdproc.Start(t, 3, etcdproc.WithArgs("--feature-gates=StopGRPCServiceOnDefrag=true", "--quota-backend-bytes=8589934592"))
	c := open(t, Options{Endpoints: p.Endpoints(), HealthInterval: 100 * time.Millisecond})
	eventually(t, 30*time.Second, "all answer", func() bool { return leaders(c) == 1 && allUp(c) })
	fatten(t, p, c, 300)
	victim, client := p.Endpoint(p.Follower()), p.Client()
	r := read(t, p, c)
	told := false
	for i := 0; i < 5 && !told; i++ { // one may be over before anybody looks
		began := time.Now()
		done := make(chan error, 1)
		var wg conc.WaitGroup
		wg.Go(func() { // past sharder
			_, err := client.Defragment(within(t, time.Minute), victim)
			done <- err
		})
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
		wg.Wait()
		t.Logf("the defragmentation took %v, the slowest read %v", time.Since(began), time.Duration(r.slowest.Load()))
	}
	if !told {
		t.Error("nobody noticed")
	}
	if slowest := time.Duration(r.slowest.Load()); slowest > patience+4*time.Second {
		t.Errorf("a read waited %v for the end of it", slowest)
	}
	answersAgain(t, c, victim)
	r.check(t)
}

// fatten writes so many values of a megabyte.
func fatten(t *testing.T, p *etcdproc.Cluster, c *Cluster, n int) {
	t.Helper()
	value := strings.Repeat("x", 1<<20)
	for i := range n {
		p.Despite(func() error { return put(within(t, 30*time.Second), c, "fill/"+string(rune('a'+i%20)), value) })
	}
}

// What sharder passes on itself needs no sign from etcd.
func TestAMemberThatIsAskedToDefragmentIsAskedNothingElse(t *testing.T) {
	t.Parallel()
	p := etcdproc.Start(t, 3)
	c := open(t, Options{Endpoints: p.Endpoints()})
	eventually(t, 30*time.Second, "all answer", func() bool { return leaders(c) == 1 && allUp(c) })
	fatten(t, p, c, 300)
	victim := memberAt(c, p.Endpoint(p.Follower())).Endpoint
	m := c.roster.Load().find(endpoint{addr: victim})
	read := &pb.RangeRequest{Key: []byte("fill/a"), KeysOnly: true, Serializable: true} // no leader takes part
	var reads atomic.Int64
	for i := 0; i < 5 && reads.Load() == 0; i++ { // one may be over before anybody looks
		done := make(chan error, 1)
		var wg conc.WaitGroup
		wg.Go(func() {
			ctx := stages.Ask(within(t, time.Minute), stages.Want{Member: victim})
			_, err := pb.NewMaintenanceClient(c).Defragment(ctx, &pb.DefragmentRequest{})
			done <- err
		})
		for m.defrags.Load() == 0 && len(done) == 0 {
			time.Sleep(time.Millisecond)
		}
		wg.Go(func() {
			for m.defrags.Load() == 1 {
				if _, err := pb.NewKVClient(c).Range(within(t, 30*time.Second), read); err != nil {
					t.Error(err)
					return
				}
				reads.Add(1)
			}
		})
		sent := false // one that is sent there waits for the end of it
		for ; m.defrags.Load() == 1; time.Sleep(time.Millisecond) {
			sent = sent || m.calls.Load() > 0 && m.defrags.Load() == 1
		}
		wg.Wait()
		if err := <-done; err != nil || sent {
			t.Fatalf("%v; a read was sent to the member that defragments: %t", err, sent)
		}
	}
	t.Logf("%d reads meanwhile", reads.Load())
	if reads.Load() == 0 || m.defrags.Load() != 0 {
		t.Errorf("%d reads were answered meanwhile", reads.Load())
	}
	answersAgain(t, c, victim)
}

// A member answers no probe while it defragments (Status reads the database), and so is taken
// for frozen if that takes long. What it was asked for goes on all the same.
func TestADefragmentationIsWaitedForHoweverLongItsMemberIsSilent(t *testing.T) {
	t.Parallel()
	p := etcdproc.Start(t, 3)
	c := open(t, Options{Endpoints: p.Endpoints(), KeepaliveTime: time.Minute}) // which would notice
	eventually(t, 30*time.Second, "all answer", func() bool { return leaders(c) == 1 && allUp(c) })
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
	eventually(t, 30*time.Second, "it is taken for frozen", func() bool { return m.defrags.Load() == 1 && m.now().health == down })
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
