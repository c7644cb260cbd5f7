package integration

import (
	"context"
	"fmt"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/sourcegraph/conc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"

	"github.com/sharder/sharder/integration/etcdproc"
	"github.com/sharder/sharder/integration/harness"
)

// traffic is clients of one sharder that read linearizably and write, all the time, and
// don't try again. Beside them each member is asked straight: what takes long there as well
// is not sharder's doing.
type traffic struct {
	cluster *etcdproc.Cluster

	mu      sync.Mutex
	newest  [clients]time.Time // when the last request of each client that was answered well began
	notable []request          // what failed or took its time
	asked   []request          // what took its time at a member, by whom it was asked
	reads   int
}

// clients are how many there are; each third one writes.
const clients = 6

// request is one that is over.
type request struct {
	write  bool
	member int // that was asked straight
	began  time.Time
	took   time.Duration
	err    error
}

// moment is what no request takes on a machine that has the time for it.
const moment = 100 * time.Millisecond

// startTraffic runs until the test ends. Every request has so long.
func startTraffic(t *testing.T, p *etcdproc.Cluster, endpoint string, deadline time.Duration) *traffic {
	t.Helper()
	kv := pb.NewKVClient(connOf(t, endpoint))
	r := &traffic{cluster: p}
	ctx, cancel := context.WithCancel(context.Background())
	var wg conc.WaitGroup
	t.Cleanup(func() { cancel(); wg.Wait() })
	for i := range clients {
		wg.Go(func() {
			for n := 0; ctx.Err() == nil; n++ {
				step, done := context.WithTimeout(context.Background(), deadline)
				q := request{write: i%3 == 0, began: time.Now()}
				if q.write {
					_, q.err = kv.Put(step, &pb.PutRequest{Key: fmt.Appendf(nil, "w/%d/%d", i, n), Value: []byte("v")})
				} else {
					_, q.err = kv.Range(step, &pb.RangeRequest{Key: []byte("k")})
				}
				done()
				q.took = time.Since(q.began)
				r.note(i, q)
				time.Sleep(time.Millisecond) // the members need their share of the machine
			}
		})
	}
	for i := range p.Len() {
		member := pb.NewKVClient(connOf(t, hostPort(p.Endpoint(i))))
		wg.Go(func() { r.ask(ctx, i, member) })
	}
	return r
}

// ask reads from one member, again and again. That the machine stood still between two reads counts
// as well.
func (r *traffic) ask(ctx context.Context, i int, kv pb.KVClient) {
	for ctx.Err() == nil {
		q := request{member: i, began: time.Now()}
		_, q.err = kv.Range(ctx, &pb.RangeRequest{Key: []byte("k")})
		time.Sleep(20 * time.Millisecond)
		if q.took = time.Since(q.began); q.took > moment {
			r.mu.Lock()
			r.asked = append(r.asked, q)
			r.mu.Unlock()
		}
	}
}

func (r *traffic) note(client int, q request) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if q.err == nil {
		r.newest[client] = q.began
	}
	if q.err != nil || q.took > moment {
		r.notable = append(r.notable, q)
	}
	if !q.write {
		r.reads++
	}
}

// round waits until each client has had a good answer to a request that it has made since: what it
// made before is over then.
func (r *traffic) round(t *testing.T) {
	t.Helper()
	began := time.Now()
	waitUntil(t, "all clients are answered", func() bool {
		r.mu.Lock()
		defer r.mu.Unlock()
		return !slices.ContainsFunc(r.newest[:], func(at time.Time) bool { return at.Before(began) })
	})
}

// since gives what failed of what began since then, and how long the slowest took; and how long members,
// without those that are out, took themselves.
func (r *traffic) since(began time.Time, out ...int) (reads, writes []error, slowest, straight time.Duration) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, q := range r.notable {
		switch {
		case q.began.Before(began):
			continue
		case q.err != nil && q.write:
			writes = append(writes, q.err)
		case q.err != nil:
			reads = append(reads, q.err)
		}
		slowest = max(slowest, q.took)
	}
	for _, q := range r.asked {
		if q.began.Add(q.took).After(began) && !slices.Contains(out, q.member) {
			straight = max(straight, q.took)
		}
	}
	return reads, writes, slowest, straight
}

// calm checks that from now on, for a while, nothing fails and nothing waits. It looks once more if
// there was an election meanwhile, which is none of sharder's business; some members are out.
func (r *traffic) calm(t *testing.T, when string, out ...int) {
	t.Helper()
	for deadline := time.Now().Add(eventual); ; {
		time.Sleep(200 * time.Millisecond)
		r.round(t) // what began before
		elections, began := r.cluster.Elections(out...), time.Now()
		before := r.count()
		time.Sleep(2 * time.Second)
		r.round(t)
		reads, writes, slowest, straight := r.since(began, out...)
		if r.cluster.Elections(out...) != elections && time.Now().Before(deadline) {
			t.Logf("%s: an election", when)
			reads = slices.DeleteFunc(reads, etcdproc.ElectionError)
			writes = slices.DeleteFunc(writes, etcdproc.ElectionError)
			if len(reads)+len(writes) == 0 {
				continue
			}
		}
		if len(reads) > 0 || len(writes) > 0 {
			t.Errorf("%s: %d reads and %d writes failed: %v %v", when, len(reads), len(writes), reads, writes)
		}
		if slowest > time.Second+straight {
			t.Errorf("%s: a request took %v, and none at a member more than %v", when, slowest, straight)
		}
		if r.count() == before {
			t.Errorf("%s: nothing was read", when)
		}
		return
	}
}

// count is how many reads are over.
func (r *traffic) count() int {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.reads
}

// fault has something happen to a member, and waits until all is well again: for as long as it may take
// sharder, and until those are answered that wait. What has failed must be writes that nobody knows the
// outcome of, and nothing may have taken longer.
func (r *traffic) fault(t *testing.T, member int, happen func(int), lasts time.Duration) {
	t.Helper()
	elections, began := r.cluster.Elections(member), time.Now()
	happen(member)
	time.Sleep(lasts)
	_, _, _, straight := r.since(began, member)
	time.Sleep(straight)
	r.round(t)
	reads, writes, slowest, straight := r.since(began, member)
	t.Logf("%d writes are unknown; the slowest request took %v, and at a member %v", len(writes), slowest, straight)
	if straight > 3*moment || r.cluster.Elections(member) != elections {
		// Then etcd, which does so after seven seconds, may have given a read up before sharder could know better.
		reads = slices.DeleteFunc(reads, etcdproc.ElectionError)
	}
	if len(reads) > 0 {
		t.Errorf("%d reads failed: %v", len(reads), reads)
	}
	for _, err := range writes {
		if status.Code(err) != codes.Unavailable {
			t.Errorf("a write ended with %v", err)
		}
	}
	if slowest > lasts+straight {
		t.Errorf("a request took %v, and none at a member more than %v", slowest, straight)
	}
}

// behindOne is one etcd cluster of three members behind one sharder, under traffic.
func behindOne(t *testing.T, opts ...etcdproc.Option) (*etcdproc.Cluster, *traffic) {
	t.Helper()
	p := etcdproc.Start(t, 3, opts...)
	s := harness.Start(t, harness.Single(p.Endpoints()...))
	r := startTraffic(t, p, s.Endpoint, 20*time.Second)
	r.calm(t, "at first")
	return p, r
}

func TestAMemberKilledUnderLoadCostsNoRead(t *testing.T) {
	t.Parallel()
	p, r := behindOne(t)
	victim := p.Follower()
	r.fault(t, victim, p.Kill, time.Second)
	r.calm(t, "while one is gone", victim)
	p.Start(victim)
	r.calm(t, "when it is back")
}

func TestAFrozenMemberCostsSecondsAndOnlyOnce(t *testing.T) {
	t.Parallel()
	p, r := behindOne(t)
	victim := p.Follower()
	r.fault(t, victim, p.Pause, 4*time.Second) // two probes of a second, after at most a second
	for range 3 {
		r.calm(t, "while one is frozen", victim)
	}
	p.Resume(victim)
	r.calm(t, "when it is back")
}

func TestAMemberWithoutTheOthersIsLeft(t *testing.T) {
	t.Parallel()
	p, r := behindOne(t, etcdproc.WithCables())
	victim := p.Follower()
	r.fault(t, victim, p.Isolate, 8*time.Second) // it loses its leader within three seconds, and what waits there is moved after three more
	r.calm(t, "while one is cut off", victim)
	p.Reconnect()
	waitUntil(t, "it is one of them again", func() bool { // which hears the others, and is heard
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		_, err := pb.NewKVClient(connOf(t, hostPort(p.Endpoint(victim)))).Range(ctx, &pb.RangeRequest{Key: []byte("k")})
		return err == nil
	})
	r.calm(t, "when it is back")
}

func TestATotalOutageIsToldAtOnceAndEndsAtOnce(t *testing.T) {
	t.Parallel()
	p := etcdproc.Start(t, 3)
	s := harness.Start(t, harness.Single(p.Endpoints()...))
	kv := pb.NewKVClient(connOf(t, s.Endpoint))
	get := func() error {
		ctx, cancel := context.WithTimeout(t.Context(), eventual)
		defer cancel()
		_, err := kv.Range(ctx, &pb.RangeRequest{Key: []byte("k")})
		return err
	}
	for i := range p.Len() {
		p.Kill(i)
	}
	time.Sleep(2 * time.Second)
	began := time.Now()
	for range 50 {
		if err := get(); status.Code(err) != codes.Unavailable {
			t.Fatal(err)
		}
	}
	if took := time.Since(began); took > 25*time.Second { // a wait for a probe each would take twice as long
		t.Fatalf("50 calls failed within %v", took)
	}
	for i := range p.Len() {
		p.Launch(i)
	}
	p.Elections() // all have a leader
	// They are asked straight, too, for as long as sharder is, to know how fast anybody could be.
	var direct []pb.KVClient
	for i := range p.Len() {
		direct = append(direct, pb.NewKVClient(connOf(t, hostPort(p.Endpoint(i)))))
	}
	began, slow := time.Now(), time.Duration(0)
	waitUntil(t, "the end of the outage is noticed", func() bool {
		asked := time.Now()
		for _, member := range direct {
			_, _ = member.Range(t.Context(), &pb.RangeRequest{Key: []byte("k")})
		}
		slow += time.Since(asked)
		return get() == nil
	})
	if took := time.Since(began); took > 1500*time.Millisecond+2*slow { // within a second, and the request
		t.Errorf("noticed after %v, of which members took %v", took, slow)
	}
}
