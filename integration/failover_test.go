package integration

import (
	"context"
	"fmt"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/sourcegraph/conc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"

	"github.com/sharder/sharder/integration/etcdproc"
	"github.com/sharder/sharder/integration/etcdtest"
	"github.com/sharder/sharder/integration/harness"
)

// traffic is clients of one sharder that read linearizably and write, all the time, and
// don't try again.
type traffic struct {
	reads, writes atomic.Int64
	mu            sync.Mutex
	readErrs      []error
	writeErrs     []error
	slowest       time.Duration // since the last look
}

// startTraffic runs until the test ends. Every request has so long.
func startTraffic(t *testing.T, endpoint string, deadline time.Duration) *traffic {
	t.Helper()
	kv := pb.NewKVClient(etcdtest.Conn(t, endpoint))
	r := &traffic{}
	ctx, cancel := context.WithCancel(context.Background())
	var wg conc.WaitGroup
	t.Cleanup(func() { cancel(); wg.Wait() })
	for i := range 6 {
		wg.Go(func() {
			for n := 0; ctx.Err() == nil; n++ {
				began := time.Now()
				step, done := context.WithTimeout(context.Background(), deadline)
				var err error
				if i%3 == 0 {
					_, err = kv.Put(step, &pb.PutRequest{Key: fmt.Appendf(nil, "w/%d/%d", i, n), Value: []byte("v")})
				} else {
					_, err = kv.Range(step, &pb.RangeRequest{Key: []byte("k")})
				}
				done()
				r.note(i%3 == 0, err, time.Since(began))
			}
		})
	}
	return r
}

func (r *traffic) note(write bool, err error, took time.Duration) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.slowest = max(r.slowest, took)
	if write {
		r.writes.Add(1)
		if err != nil {
			r.writeErrs = append(r.writeErrs, err)
		}
		return
	}
	r.reads.Add(1)
	if err != nil {
		r.readErrs = append(r.readErrs, err)
	}
}

// look gives how many requests have failed and the slowest one, since the last look.
func (r *traffic) look() (reads, writes []error, slowest time.Duration) {
	r.mu.Lock()
	defer r.mu.Unlock()
	reads, writes, slowest = r.readErrs, r.writeErrs, r.slowest
	r.readErrs, r.writeErrs, r.slowest = nil, nil, 0
	return reads, writes, slowest
}

// calm checks that from now on, for a while, nothing fails and nothing waits.
func (r *traffic) calm(t *testing.T, when string) {
	t.Helper()
	time.Sleep(200 * time.Millisecond) // what began before
	r.look()
	before := r.reads.Load()
	time.Sleep(2 * time.Second)
	reads, writes, slowest := r.look()
	if len(reads) > 0 || len(writes) > 0 {
		t.Errorf("%s: %d reads and %d writes failed: %v %v", when, len(reads), len(writes), reads, writes)
	}
	if slowest > time.Second {
		t.Errorf("%s: a request took %v", when, slowest)
	}
	if r.reads.Load() == before {
		t.Errorf("%s: nothing was read", when)
	}
}

// onlyUnknown checks that what failed are writes that nobody knows the outcome of.
func onlyUnknown(t *testing.T, reads, writes []error) {
	t.Helper()
	if len(reads) > 0 {
		t.Errorf("%d reads failed: %v", len(reads), reads)
	}
	for _, err := range writes {
		if status.Code(err) != codes.Unavailable {
			t.Errorf("a write ended with %v", err)
		}
	}
}

// behindOne is one etcd cluster of three members behind one sharder, under traffic.
func behindOne(t *testing.T, deadline time.Duration, opts ...etcdproc.Option) (*etcdproc.Cluster, *traffic) {
	t.Helper()
	p := etcdproc.Start(t, 3, opts...)
	s := harness.Start(t, harness.Single(p.Endpoints()...))
	r := startTraffic(t, s.Endpoint, deadline)
	r.calm(t, "at first")
	return p, r
}

func TestAMemberKilledUnderLoadCostsNoRead(t *testing.T) {
	t.Parallel()
	p, r := behindOne(t, 5*time.Second)
	victim := p.Follower()
	p.Kill(victim)
	r.calm(t, "while one is gone")
	p.Start(victim)
	r.calm(t, "when it is back")
	reads, writes, _ := r.look()
	onlyUnknown(t, reads, writes)
}

func TestAFrozenMemberCostsSecondsAndOnlyOnce(t *testing.T) {
	t.Parallel()
	p, r := behindOne(t, 5*time.Second)
	victim := p.Follower()
	r.look()
	p.Pause(victim)
	time.Sleep(4 * time.Second) // two probes of a second, after at most a second
	reads, writes, slowest := r.look()
	t.Logf("%d writes are unknown; the slowest request took %v", len(writes), slowest)
	onlyUnknown(t, reads, writes)
	if slowest > 4*time.Second {
		t.Errorf("a request took %v", slowest)
	}
	for range 3 {
		r.calm(t, "while one is frozen")
	}
	p.Resume(victim)
	r.calm(t, "when it is back")
}

func TestAMemberWithoutTheOthersIsLeft(t *testing.T) {
	t.Parallel()
	p, r := behindOne(t, 10*time.Second, etcdproc.WithCables())
	victim := p.Follower()
	r.look()
	p.Isolate(victim)
	time.Sleep(8 * time.Second) // it loses its leader within three seconds, and what waits there is moved after three more
	reads, writes, _ := r.look()
	onlyUnknown(t, reads, writes)
	r.calm(t, "while one is cut off")
	p.Reconnect()
	time.Sleep(2 * time.Second)
	r.calm(t, "when it is back")
}

func TestATotalOutageIsToldAtOnceAndEndsAtOnce(t *testing.T) {
	t.Parallel()
	p := etcdproc.Start(t, 3)
	s := harness.Start(t, harness.Single(p.Endpoints()...))
	kv := pb.NewKVClient(etcdtest.Conn(t, s.Endpoint))
	get := func() error {
		ctx, cancel := context.WithTimeout(t.Context(), 5*time.Second)
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
	if took := time.Since(began); took > 10*time.Second { // a wait for a probe each would take longer
		t.Fatalf("50 calls failed within %v", took)
	}
	for i := range p.Len() {
		p.Launch(i)
	}
	p.Leader()
	began = time.Now()
	waitUntil(t, "the end of the outage is noticed", func() bool { return get() == nil })
	if took := time.Since(began); took > 1500*time.Millisecond { // within a second, and the request
		t.Errorf("noticed after %v", took)
	}
}
