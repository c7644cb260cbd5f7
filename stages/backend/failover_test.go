package backend

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/sourcegraph/conc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/sharder/sharder/integration/etcdproc"
	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
)

// load is reads and writes that never stop until told to.
type load struct {
	c       *Cluster
	reads   atomic.Int64
	writes  atomic.Int64
	mu      sync.Mutex
	readErr []error
	failed  map[string]error // writes that did not succeed, by key
}

// run keeps a few readers and writers busy until ctx ends. Every write has a key of
// its own, so that one executed twice shows as version 2.
func (l *load) run(ctx context.Context) {
	l.failed = make(map[string]error)
	var wg conc.WaitGroup
	for i := range 4 {
		wg.Go(func() {
			for ctx.Err() == nil {
				step, cancel := context.WithTimeout(context.Background(), 30*time.Second)
				_, err := get(step, l.c, "base")
				cancel()
				l.reads.Add(1)
				if err != nil {
					l.mu.Lock()
					l.readErr = append(l.readErr, err)
					l.mu.Unlock()
				}
			}
		})
		wg.Go(func() {
			for n := 0; ctx.Err() == nil; n++ {
				key := fmt.Sprintf("w/%d/%d", i, n)
				step, cancel := context.WithTimeout(context.Background(), 30*time.Second)
				err := put(step, l.c, key, "v")
				cancel()
				l.writes.Add(1)
				if err != nil {
					l.mu.Lock()
					l.failed[key] = err
					l.mu.Unlock()
				}
			}
		})
	}
	wg.Wait()
}

// check verifies what the load saw against what the cluster holds. What etcd says of an election is
// etcd's own, if there was one.
func (l *load) check(t *testing.T, election bool) {
	t.Helper()
	if election {
		l.readErr = slices.DeleteFunc(l.readErr, etcdproc.ElectionError)
	}
	if len(l.readErr) > 0 {
		t.Errorf("%d of %d reads failed; the first: %v", len(l.readErr), l.reads.Load(), l.readErr[0])
	}
	for key, err := range l.failed {
		if status.Code(err) != codes.Unavailable {
			t.Errorf("write %s: %v; only Unavailable may happen", key, err)
		}
	}
	r, err := pb.NewKVClient(l.c).Range(within(t, 30*time.Second), &pb.RangeRequest{Key: []byte("w/"), RangeEnd: []byte("w0")})
	if err != nil {
		t.Fatal(err)
	}
	there := make(map[string]bool)
	for _, kv := range r.Kvs {
		there[string(kv.Key)] = true
		if kv.Version != 1 {
			t.Errorf("%s was written %d times", kv.Key, kv.Version)
		}
	}
	done := int(l.writes.Load()) - len(l.failed)
	if election {
		maps.DeleteFunc(l.failed, func(_ string, err error) bool { return etcdproc.ElectionError(err) })
	}
	if lost := done - len(there); lost > 0 {
		t.Errorf("%d acknowledged writes are missing", lost)
	}
	t.Logf("%d reads, %d writes, %d of them unknown", l.reads.Load(), l.writes.Load(), len(l.failed))
}

// during runs the load while something happens, perhaps to some members of p, and checks it afterwards.
func during(t *testing.T, p *etcdproc.Cluster, c *Cluster, happens func(), to ...int) *load {
	t.Helper()
	eventually(t, 30*time.Second, "all answer", func() bool { return allUp(c) })
	p.Despite(func() error { return put(within(t, 30*time.Second), c, "base", "v") })
	before := p.Elections(to...)
	ctx, cancel := context.WithCancel(context.Background())
	l := &load{c: c}
	var wg conc.WaitGroup
	wg.Go(func() { l.run(ctx) })
	eventually(t, 30*time.Second, "load", func() bool { return l.reads.Load() > 50 && l.writes.Load() > 50 })
	happens()
	reads, writes := l.reads.Load(), l.writes.Load()
	eventually(t, 30*time.Second, "load goes on", func() bool { return l.reads.Load() > reads+100 && l.writes.Load() > writes+100 })
	cancel()
	wg.Wait()
	l.check(t, p.Elections(to...) != before)
	return l
}

func TestAKilledMemberCostsNoReadAndNoWriteTwice(t *testing.T) {
	e := etcdproc.Start(t, 3)
	c := open(t, Options{Endpoints: e.Endpoints()})
	victim := e.Follower()
	during(t, e, c, func() { e.Kill(victim) }, victim)
	eventually(t, 30*time.Second, "the killed member is reported", func() bool { s := c.Members()[victim]; return !s.Healthy && s.Err != nil })
	e.Start(victim)
	eventually(t, 30*time.Second, "the member is used again", func() bool { return c.Members()[victim].Healthy })
}

func TestAFrozenMemberIsLeftAloneWithinSeconds(t *testing.T) {
	e := etcdproc.Start(t, 3)
	c := open(t, Options{Endpoints: e.Endpoints(), KeepaliveTime: time.Minute}) // which would notice, too
	victim := e.Follower()
	all := e.Elections()
	l := during(t, e, c, func() {
		begin := time.Now()
		e.Pause(victim)
		eventually(t, 30*time.Second, "the frozen member is noticed", func() bool { return !c.Members()[victim].Healthy })
		t.Logf("noticed after %v", time.Since(begin))
	}, victim)
	if len(l.failed) == 0 {
		// Every writer meets the frozen member. Whether it will execute the write when
		// it thaws, nobody knows: an answer of success can only come from a repetition.
		t.Error("no write ended as unknown: they were repeated elsewhere")
	}
	e.Resume(victim)
	eventually(t, 30*time.Second, "the thawed member is used again", func() bool { return c.Members()[victim].Healthy })
	for range 6 { // every member's turn
		if _, err := get(within(t, 30*time.Second), c, "base"); err != nil && !(etcdproc.ElectionError(err) && e.Elections() != all) {
			t.Fatal(err)
		}
	}
}

func TestAMemberStoppedInOrderCostsNoRead(t *testing.T) {
	e := etcdproc.Start(t, 3)
	c := open(t, Options{Endpoints: e.Endpoints()})
	victim := e.Follower()
	during(t, e, c, func() {
		e.Stop(victim)
		e.Start(victim)
	}, victim)
}

func TestAKilledLeaderPassesOnOnlyEtcdsOwnErrors(t *testing.T) {
	e := etcdproc.Start(t, 3)
	c := serving(t, Options{Endpoints: e.Endpoints()})
	e.Despite(func() error { return put(within(t, 30*time.Second), c, "base", "v") })
	e.Kill(e.Leader())
	eventually(t, 30*time.Second, "reads work again", func() bool {
		_, err := get(within(t, 30*time.Second), c, "base")
		if err != nil && !strings.HasPrefix(status.Convert(err).Message(), "etcdserver: ") {
			t.Errorf("a read failed with %v", err)
		}
		return err == nil
	})
}

func TestADeadClusterFailsAtOnceAndComesBack(t *testing.T) {
	e := etcdproc.Start(t, 3)
	c := serving(t, Options{Name: "east", Endpoints: e.Endpoints()})
	e.Despite(func() error { return put(within(t, 30*time.Second), c, "k", "v") })
	for i := range e.Len() {
		e.Kill(i)
	}
	eventually(t, 30*time.Second, "known down", func() bool { return !c.Healthy() })
	no := func() (why string) {
		err := put(within(t, 30*time.Second), c, "k", "w")
		if why = status.Convert(err).Message(); status.Code(err) != codes.Unavailable || !strings.HasPrefix(why, "sharder: shard east: no member answers (last error: 127.0.0.1:") {
			t.Fatalf("got %v", err)
		}
		return why
	}
	begin := time.Now()
	for range 10 {
		no()
	}
	if took := time.Since(begin); took > 10*time.Second { // one that waits for probes takes settleTimeout each time
		t.Errorf("took %v to say no ten times", took)
	}
	// The first that is heard of a death may be the end of a call.
	eventually(t, 30*time.Second, "the reason is told", func() bool { return strings.Contains(no(), "connection refused") })
	for i := range e.Len() {
		e.Launch(i)
	}
	eventually(t, 30*time.Second, "back", func() bool {
		_, err := get(within(t, 30*time.Second), c, "k")
		return err == nil
	})
}

func TestAllMembersFrozenIsNotADeadlineButUnavailable(t *testing.T) {
	e := etcdproc.Start(t, 1)
	c := serving(t, Options{Endpoints: e.Endpoints(), KeepaliveTime: time.Minute}) // which would notice, too
	if err := put(within(t, 30*time.Second), c, "k", "v"); err != nil {
		t.Fatal(err)
	}
	e.Pause(0)
	begin := time.Now()
	err := put(within(t, 2*time.Minute), c, "k", "w") // in flight when it is noticed
	if status.Code(err) != codes.Unavailable || time.Since(begin) > 30*time.Second {
		t.Fatalf("after %v: %v", time.Since(begin), err)
	}
	_, err = get(within(t, 30*time.Second), c, "k")
	if status.Code(err) != codes.Unavailable || !strings.Contains(err.Error(), "no answer to") {
		t.Errorf("got %v", err)
	}
	e.Resume(0)
	eventually(t, 30*time.Second, "thawed", func() bool {
		_, err := get(within(t, 30*time.Second), c, "k")
		return err == nil
	})
}

func TestAMemberWithoutALeaderIsAskedLast(t *testing.T) {
	e := etcdproc.Start(t, 3)
	c := open(t, Options{Endpoints: e.Endpoints()})
	eventually(t, 30*time.Second, "up, with a leader", func() bool { return c.Healthy() && !c.NoLeader() })
	e.Kill(0)
	e.Kill(1)
	eventually(t, 30*time.Second, "the survivor says that it has no leader", c.NoLeader)
	if !c.Healthy() || c.Members()[2].Version == "" {
		t.Errorf("the survivor: %+v", c.Members()[2])
	}
	// It still serves what needs no leader.
	_, err := pb.NewKVClient(c).Range(within(t, 30*time.Second), &pb.RangeRequest{Key: []byte("k"), Serializable: true})
	if err != nil {
		t.Error(err)
	}
}
