package lease

import (
	"context"
	"errors"
	"fmt"
	"io"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"google.golang.org/grpc/codes"

	"github.com/sharder/sharder/stages"
	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
)

func TestKeepAlivesAreAnsweredAtOnceWithTheTTLOfEtcd(t *testing.T) {
	inBoth(t, func(t *testing.T, w *world) {
		s, stop := w.running()
		c := serve(t, s)
		stream := keepAlive(t, c)
		drawn, named := s.mustGrant(0, 600), s.mustGrant(7, 601)
		s.known.forget(named) // as if another sharder had granted it
		for range 3 {
			for id, ttl := range map[int64]int64{drawn: 600, named: 601, 4711: 0} {
				begin := time.Now()
				r, err := renew(stream, id)
				if err != nil || r.TTL != ttl || r.ID != id || r.Header.GetRevision() == 0 {
					t.Fatalf("lease %x: %v, %v", id, r, err)
				}
				if d := time.Since(begin); d > s.o.Patience/2 { // what is waited for takes all of it
					t.Fatalf("took %v", d)
				}
			}
		}
		// Answers come in the order of the requests, and all of them before the end.
		ids := []int64{named, 1, drawn, drawn, 2, named}
		for _, id := range ids {
			if err := stream.Send(&pb.LeaseKeepAliveRequest{ID: id}); err != nil {
				t.Fatal(err)
			}
		}
		stream.CloseSend()
		for _, id := range ids {
			if r, err := stream.Recv(); err != nil || r.ID != id {
				t.Fatalf("got %v, %v, want %x", r, err, id)
			}
		}
		if _, err := stream.Recv(); !errors.Is(err, io.EOF) {
			t.Fatalf("half-closed stream ended with %v", err)
		}
		// A stream that is open ends when the service does.
		stream = keepAlive(t, c)
		if _, err := renew(stream, drawn); err != nil {
			t.Fatal(err)
		}
		stop()
		_, err := stream.Recv()
		wantCode(t, err, codes.Unavailable, "sharder: shutting down")
	})
}

func TestKeepAlivesKeepALeaseAliveAndNothingElseDoes(t *testing.T) {
	w := newWorld(t)
	s, stop := w.running()
	defer stop()
	stream := keepAlive(t, serve(t, s))
	kept, other := s.mustGrant(7, 5), s.mustGrant(8, 5)
	let := s.keptAlive(kept, other)
	s.mustPut("b", "kept", kept)
	s.mustPut("b", "other", other)
	let()
	begin := time.Now()
	eventually(t, time.Minute, func() string {
		if r, err := renew(stream, kept); err != nil || r.TTL != 5 {
			t.Fatalf("%v, %v", r, err)
		}
		time.Sleep(200 * time.Millisecond) // a client's pace
		keys := fmt.Sprint(w.clientKeysOn("b"))
		if time.Since(begin) < 12*time.Second || keys == "[kept other]" {
			return " keys " + keys
		}
		return ""
	})
	if keys := w.clientKeysOn("b"); fmt.Sprint(keys) != "[kept]" {
		t.Fatalf("keys %q", keys)
	}
	if r, err := renew(stream, other); err != nil || r.TTL != 0 {
		t.Fatalf("%v, %v", r, err)
	}
	eventually(t, time.Minute, w.left)
	if r, err := renew(stream, kept); err != nil || r.TTL != 0 {
		t.Fatalf("%v, %v", r, err)
	}
}

func TestManyClientsOfALeaseCostTheClusterFewKeepAlives(t *testing.T) {
	w := newWorld(t)
	s, stop := w.running(func(o *Options) { o.KeepAliveStreams = 2 })
	defer stop()
	c := serve(t, s)
	id := s.mustGrant(7, 600)
	rec, _ := s.known.lease(id)
	// An answer takes so long that those who ask meanwhile can be many, however slowly they are served.
	s.taps[w.home].set(func(p *tap) { p.slow = 20 * time.Millisecond })
	const clients, each = 50, 20
	streams := make([]pb.Lease_LeaseKeepAliveClient, clients)
	for i := range streams {
		streams[i] = keepAlive(t, c)
	}
	var wg sync.WaitGroup
	for _, stream := range streams {
		wg.Add(1)
		go func() {
			defer wg.Done()
			for range each {
				if r, err := renew(stream, id); err != nil || r.TTL != 600 {
					t.Errorf("%v, %v", r, err)
					return
				}
			}
		}()
	}
	wg.Wait()
	s.taps[w.home].set(func(p *tap) {
		t.Logf("%d keep-alives of clients became %d", clients*each, p.sent[rec.shardID])
		if n := p.sent[rec.shardID]; n < each || n > clients*each/4 {
			t.Errorf("%d keep-alives of clients became %d", clients*each, n)
		}
		if p.streams > 2 {
			t.Errorf("%d upstream streams", p.streams)
		}
	})
}

func TestARenewalIsNeverOlderThanTheRequest(t *testing.T) {
	w := newWorld(t)
	s := w.recovered()
	id := s.mustGrant(0, 600)
	hold := make(chan struct{}) // answers arrive once it is closed
	s.taps[w.home].set(func(p *tap) { p.hold = hold })
	g := s.places.home.renewals.enter("", nil)
	defer g.leave()
	join := func() *renewal {
		r, err := g.join(t.Context(), id)
		if err != nil {
			t.Fatal(err)
		}
		return r
	}
	first := join()
	eventually(t, 30*time.Second, func() string {
		g.mu.Lock()
		defer g.mu.Unlock()
		return map[bool]string{false: " not sent"}[first.sent]
	})
	second, third := join(), join()
	if second == first || third != second {
		t.Fatal("a request joined a renewal that was on its way, or one that waits was not shared")
	}
	close(hold)
	for _, r := range []*renewal{first, second, third} {
		if resp, err := g.wait(t.Context(), r); err != nil || resp.TTL != 600 {
			t.Fatalf("%v, %v", resp, err)
		}
	}
	s.taps[w.home].set(func(p *tap) {
		if p.sent[id] != 2 {
			t.Errorf("sent %d times", p.sent[id])
		}
	})
}

func TestAKeepAliveNobodyWaitsForIsNotSent(t *testing.T) {
	w := newWorld(t)
	s := w.recovered()
	s.taps[w.home].set(func(p *tap) { p.noStream = unavailable })
	g := s.places.home.renewals.enter("", nil)
	defer g.leave()
	left, err := g.join(t.Context(), 1)
	if err != nil {
		t.Fatal(err)
	}
	g.abandon(left)
	s.taps[w.home].set(func(p *tap) { p.noStream = nil })
	id := s.mustGrant(0, 600)
	kept, err := g.join(t.Context(), id)
	if err != nil {
		t.Fatal(err)
	}
	if resp, err := g.wait(t.Context(), kept); err != nil || resp.TTL != 600 {
		t.Fatalf("%v, %v", resp, err)
	}
	s.taps[w.home].set(func(p *tap) {
		if p.sent[1] != 0 {
			t.Error("sent")
		}
	})
}

func TestAHomeThatStopsAnsweringIsAskedOnAnotherStream(t *testing.T) {
	w := newWorld(t)
	s, stop := w.running(func(o *Options) { o.Patience, o.KeepAliveStreams = 8*time.Second, 1 }) // another is tried after half of it
	defer stop()
	id := s.mustGrant(7, 600)
	stream := keepAlive(t, serve(t, s))
	hold := make(chan struct{})
	defer close(hold)
	s.taps[w.home].set(func(p *tap) { p.hold = hold })
	if err := stream.Send(&pb.LeaseKeepAliveRequest{ID: id}); err != nil {
		t.Fatal(err)
	}
	eventually(t, 30*time.Second, func() string {
		n := 0
		s.taps[w.home].set(func(p *tap) { n = p.streams })
		return map[bool]string{true: " no stream"}[n == 0]
	})
	s.taps[w.home].set(func(p *tap) { p.hold = nil })
	if r, err := stream.Recv(); err != nil || r.TTL != 600 {
		t.Fatalf("%v, %v", r, err)
	}
}

func TestKeepAlivesSurviveARestartOfHome(t *testing.T) {
	inBoth(t, func(t *testing.T, w *world) {
		s, stop := w.running(func(o *Options) { o.Patience = time.Minute })
		defer stop()
		c := serve(t, s)
		ids := []int64{s.mustGrant(0, 600), s.mustGrant(7, 600), s.mustGrant(8, 600)}
		streams := make([]pb.Lease_LeaseKeepAliveClient, len(ids))
		for i, id := range ids {
			streams[i] = keepAlive(t, c)
			if _, err := renew(streams[i], id); err != nil {
				t.Fatal(err)
			}
		}
		w.etcds[w.home].Stop()
		for i, id := range ids {
			if err := streams[i].Send(&pb.LeaseKeepAliveRequest{ID: id}); err != nil {
				t.Fatal(err)
			}
		}
		w.etcds[w.home].Restart()
		for i, id := range ids {
			if r, err := streams[i].Recv(); err != nil || r.TTL != 600 || r.ID != id {
				t.Fatalf("%v, %v", r, err)
			}
		}
		// The watch of the records resumes, too.
		id := s.mustGrant(9, 600)
		s.mustPut("c", "k", id)
		s.expire(id)
		eventually(t, time.Minute, func() string { return keysText(w.clientKeysOn("c")) })
	})
}

func keysText(keys []string) string {
	if len(keys) == 0 {
		return ""
	}
	return fmt.Sprintf(" keys %q", keys)
}

func TestAHomeThatIsDownEndsOnlyTheStreamsThatAsk(t *testing.T) {
	inBoth(t, func(t *testing.T, w *world) {
		s, stop := w.running(func(o *Options) { o.Patience = 3 * time.Second })
		defer stop()
		c := serve(t, s)
		id := s.mustGrant(7, 600)
		asking, idle := keepAlive(t, c), keepAlive(t, c)
		for _, stream := range []pb.Lease_LeaseKeepAliveClient{asking, idle} {
			if _, err := renew(stream, id); err != nil {
				t.Fatal(err)
			}
		}
		w.etcds[w.home].Stop()
		failed := make(chan error, 2)                                                                        // at the same time, since patience takes its time
		for stream, id := range map[pb.Lease_LeaseKeepAliveClient]int64{asking: id, keepAlive(t, c): 4711} { // one is remembered, the other not
			go func() {
				_, err := renew(stream, id)
				failed <- err
			}()
		}
		for range 2 {
			wantCode(t, <-failed, codes.Unavailable, "sharder: ", w.homeText())
		}
		w.etcds[w.home].Restart()
		eventually(t, time.Minute, func() string {
			if r, err := renew(keepAlive(t, c), id); err != nil || r.TTL != 600 {
				return fmt.Sprint(" ", r, err)
			}
			return ""
		})
		if r, err := renew(idle, id); err != nil || r.TTL != 600 {
			t.Fatalf("the stream that was idle: %v, %v", r, err)
		}
	})
}

func TestAKeepAliveOfAnEndedLeaseIsAnsweredAfterItsKeysAreGone(t *testing.T) {
	inBoth(t, func(t *testing.T, w *world) {
		s := w.recovered() // nobody runs: the one who asks has it finished
		c := serve(t, s)
		id := s.mustGrant(7, 600)
		s.mustPut("b", "k", id)
		stream := keepAlive(t, c)
		s.expire(id)
		if r, err := renew(stream, id); err != nil || r.TTL != 0 {
			t.Fatalf("%v, %v", r, err)
		}
		if left := w.left(); left != "" {
			t.Fatal(left)
		}
		if err := s.Run(canceled()); !errors.Is(err, context.Canceled) {
			t.Fatal(err)
		}
	})
}

func canceled() context.Context {
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	return ctx
}

// However often the way to home fails meanwhile, and however soon. Then the failure is told, which
// says more than that the patience is at its end.
func TestAKeepAliveIsTriedAsLongAsThereIsPatience(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const patience = 20 * time.Second
		o := Options{Patience: patience}.withDefaults()
		g := newRenewals(&stages.Shard{Name: "a", Conn: &tap{noStream: unavailable}}, o).enter("", nil)
		defer g.leave()
		begin := time.Now()
		r, err := g.join(t.Context(), 1)
		if err != nil {
			t.Fatal(err)
		}
		_, err = g.wait(t.Context(), r)
		wantCode(t, err, codes.Unavailable, "cut off by the test")
		if took := time.Since(begin); took < patience*3/4 || took >= patience {
			t.Fatalf("given up after %v", took)
		}
	})
}

func TestTheNumberOfRenewalsUnderWayIsBounded(t *testing.T) {
	w := newWorld(t)
	s := w.recovered(func(o *Options) { o.MaxRenewals = 2; o.KeepAliveStreams = 1 })
	w.etcds[w.home].Stop()
	r := s.places.home.renewals
	g := r.enter("", nil)
	for id := range int64(2) {
		if _, err := g.join(t.Context(), id+1); err != nil {
			t.Fatal(err)
		}
	}
	ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	if _, err := g.join(ctx, 3); !errors.Is(err, context.DeadlineExceeded) {
		t.Fatalf("third: %v", err)
	}
	if _, err := g.join(t.Context(), 1); err != nil {
		t.Fatalf("sharing: %v", err)
	}
	g.leave()
	if n := len(r.slots); n != 0 {
		t.Fatalf("%d slots taken with nobody there", n)
	}
}
