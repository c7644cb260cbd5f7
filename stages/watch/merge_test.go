package watch

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"github.com/sharder/sharder/stages"
	"go.etcd.io/etcd/api/v3/mvccpb"
)

// mergedWatch is a watch over a number of shards that nothing but a test drives: no
// group, no upstream stream.
func mergedWatch(t testing.TB, o Order, shards int, opts Options) *watch {
	t.Helper()
	opts.Table, opts.Order = oneShard(t), o
	s := New(opts)
	c := s.newSession(t.Context())
	w := &watch{session: c, id: 7}
	w.ctx, w.stop = context.WithCancel(c.ctx)
	for i := range shards {
		h := &hub{shard: &stages.Shard{Number: i}, opts: &s.opts, numbers: s.numbers}
		w.legs = append(w.legs, &leg{watch: w, hub: h, trunk: newTrunk(h, nil), next: 2})
	}
	s.numbers.outlets(w)
	return w
}

// events makes n events at a revision of a shard, with the global one in them.
func (l *Ledger) events(shard int, rev int64, n int) *batch {
	global := l.Revision(shard, rev)
	b := newBatch(nil, eventsAt(slices.Repeat([]int64{global}, n)...))
	for _, ev := range b.events {
		ev.Kv.Value = fmt.Appendf(nil, "%d@%d", shard, rev)
	}
	b.revs = slices.Repeat([]int64{rev}, n)
	return b
}

// drained is what the merge gives at this moment, without its goroutine.
func (m *merge) drained() (out []chunk) {
	for {
		c, _ := m.next()
		if c.events == nil {
			return out
		}
		out = append(out, c)
		m.mu.Lock()
		m.move(c.rev)
		m.mu.Unlock()
	}
}

func TestAMergeHoldsBackWhatMayBePreceded(t *testing.T) {
	o := NewLedger(3)
	w := mergedWatch(t, o, 3, Options{})
	a, b, c := w.legs[0], w.legs[1], w.legs[2]
	o.Add(map[int]int64{1: 2}) // 2
	o.Add(map[int]int64{0: 2}) // 3
	o.Add(map[int]int64{0: 3}) // 4
	a.push(o.events(0, 2, 1))
	if got := w.merge.drained(); got != nil {
		t.Fatalf("%v before shard 1's", got)
	}
	b.push(o.events(1, 2, 2))
	got := w.merge.drained()
	if len(got) != 1 || len(got[0].events) != 3 || got[0].rev != 3 || w.merge.at() != 3 {
		t.Fatal(got, w.merge.at())
	}
	a.push(o.events(0, 3, 1))
	if got := w.merge.drained(); len(got) != 1 || got[0].rev != 4 {
		t.Fatalf("%v: the other shards have not moved", got)
	}
	o.Add(map[int]int64{2: 2}) // 5
	o.Add(map[int]int64{0: 4}) // 6
	a.push(o.events(0, 4, 1))
	if got := w.merge.drained(); got != nil || w.merge.at() != 4 {
		t.Fatal(got, w.merge.at())
	}
	c.out.reached(2) // the range is quiet there
	if got := w.merge.drained(); len(got) != 1 || got[0].rev != 6 || w.merge.at() != 6 {
		t.Fatal(got, w.merge.at())
	}
}

func TestARevisionOfSeveralShardsComesInOneResponse(t *testing.T) {
	o := NewLedger(3)
	w := mergedWatch(t, o, 3, Options{})
	o.Add(map[int]int64{0: 2, 1: 2, 2: 2}) // 2
	o.Add(map[int]int64{1: 3})             // 3
	w.legs[2].push(o.events(2, 2, 2))
	w.legs[1].push(o.events(1, 2, 1))
	w.legs[1].push(o.events(1, 3, 1))
	if got := w.merge.drained(); got != nil {
		t.Fatalf("%v is not all of it", got)
	}
	w.merge.chunk = 1 // so that nothing but a revision keeps events together
	w.legs[0].push(o.events(0, 2, 1))
	got := w.merge.drained()
	if len(got) != 2 || len(got[0].events) != 4 || got[0].rev != 2 || len(got[1].events) != 1 {
		t.Fatal(got)
	}
	for i, want := range []string{"0@2", "1@2", "2@2", "2@2"} {
		if string(got[0].events[i].Kv.Value) != want {
			t.Fatal(got[0].events)
		}
	}
}

// Whatever comes in whatever order: every event goes out once, in the order, whole
// revisions in one piece, and none at or below what was said to be out.
func FuzzMerge(f *testing.F) {
	f.Add(uint64(1), uint16(3), uint16(1))
	f.Add(uint64(2), uint16(5), uint16(900))
	f.Fuzz(func(t *testing.T, seed uint64, shards, chunk uint16) {
		rnd := rand.New(rand.NewPCG(seed, 3))
		n := 2 + int(shards)%5
		o := NewLedger(n)
		w := mergedWatch(t, o, n, Options{Queue: 4, QueueBytes: 4000})
		w.merge.chunk = 1 + int64(chunk)
		var want []*mvccpb.Event
		todo := make([][]*batch, n) // nil for a revision without events in the range
		for range 60 {
			at, revs := o.Replayed().At, map[int]int64{}
			for i := range n {
				if rnd.IntN(n) == 0 {
					revs[i] = at[i] + 1
				}
			}
			o.Add(revs)
			for i := range n {
				if rev := revs[i]; rev > 0 && rnd.IntN(3) > 0 {
					todo[i] = append(todo[i], o.events(i, rev, 1+rnd.IntN(3)))
					want = append(want, todo[i][len(todo[i])-1].events...)
				} else if rev > 0 {
					todo[i] = append(todo[i], nil)
				}
			}
		}
		next := slices.Repeat([]int64{2}, n)
		var got []*mvccpb.Event
		for stuck := 0; stuck < 30; {
			stuck++
			for range 5 {
				i := rnd.IntN(n)
				if k := int(next[i]) - 2; k < len(todo[i]) && (todo[i][k] == nil || w.legs[i].push(todo[i][k])) {
					w.legs[i].out.reached(next[i])
					next[i]++
					stuck = 0
				}
			}
			said := w.merge.at()
			for _, c := range w.merge.drained() {
				if first := c.events[0].Kv.ModRevision; first <= said {
					t.Fatalf("%d after %d was said to be out", first, said)
				}
				if len(got) > 0 && got[len(got)-1].Kv.ModRevision == c.events[0].Kv.ModRevision {
					t.Fatalf("revision %d in two pieces", c.events[0].Kv.ModRevision)
				}
				got, stuck = append(got, c.events...), 0
			}
		}
		if !slices.Equal(got, want) {
			t.Fatalf("%d events of %d, or another order", len(got), len(want))
		}
		for _, in := range w.merge.inlets {
			if in.bytes != 0 || in.runs != nil {
				t.Fatalf("%d bytes stay", in.bytes)
			}
		}
	})
}

func TestAFullInletSetsItsLegAsideUntilHalfIsFree(t *testing.T) {
	o := NewLedger(2)
	w := mergedWatch(t, o, 2, Options{Queue: 4})
	w.session.closed = true // nobody is to bring legs back
	for rev := int64(2); rev < 8; rev++ {
		o.Add(map[int]int64{0: rev})
	}
	l, in := w.legs[0], w.legs[0].out.(*inlet)
	for rev := int64(2); rev < 6; rev++ {
		if !l.push(o.events(0, rev, 1)) {
			t.Fatalf("no room for %d", rev)
		}
	}
	if l.push(o.events(0, 6, 1)) || l.next != 6 || in.done != 5 {
		t.Fatal(l.next, in.done)
	}
	if in.ready(t.Context(), l.need) || !in.parked {
		t.Fatal("a resumer would wait for another shard")
	}
	ctx, cancel := context.WithTimeoutCause(t.Context(), time.Millisecond, errNoRoom)
	defer cancel()
	if err := in.room(ctx, 0); !errors.Is(err, errNoRoom) {
		t.Fatal(err)
	}
	if got := w.merge.drained(); len(got) != 1 || got[0].rev != 5 || in.parked {
		t.Fatal(got, in.parked)
	}
	if !in.ready(t.Context(), l.need) || !l.push(o.events(0, 6, 1)) {
		t.Fatal("no room")
	}
}

func TestAShardIsAskedWhenItsSilenceHoldsEventsUp(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		o := NewLedger(2)
		w := mergedWatch(t, o, 2, Options{})
		done := make(chan struct{})
		go func() { defer close(done); w.merge.run() }()
		asked := func(leg int) bool { // and forgets it
			synctest.Wait()
			t := w.legs[leg].trunk
			t.mu.Lock()
			defer t.mu.Unlock()
			asked := t.asking != nil
			t.asking = nil
			return asked
		}
		o.Add(map[int]int64{1: 2}) // outside of the range
		time.Sleep(time.Hour)
		if asked(1) {
			t.Fatal("asked though nothing waits")
		}
		o.Add(map[int]int64{0: 2})
		w.legs[0].push(o.events(0, 2, 1))
		if asked(1) {
			t.Fatal("asked before the event could come by itself")
		}
		time.Sleep(askDelay)
		if !asked(1) || asked(0) {
			t.Fatal("the shard that holds the event up was not asked, or the other one was")
		}
		if time.Sleep(askAgain); !asked(1) {
			t.Fatal("not asked again")
		}
		w.legs[1].out.reached(2)
		it, err := w.session.mailbox.take(t.Context())
		if err != nil || it.response.Header.Revision != 3 || it.response.WatchId != 7 {
			t.Fatal(it, err)
		}
		w.stop()
		<-done
	})
}

func TestNothingOfAMergedWatchComesBehindItsEnd(t *testing.T) {
	o := NewLedger(2)
	w := mergedWatch(t, o, 2, Options{})
	o.Add(map[int]int64{0: 2})
	w.legs[0].push(o.events(0, 2, 1))
	c, _ := w.merge.next() // in the goroutine's hands
	w.merge.kill()
	if err := w.merge.emit(t.Context(), c); err != nil {
		t.Fatal(err)
	}
	if n, _ := w.session.mailbox.used(); n != 0 {
		t.Fatalf("%d responses", n)
	}
}
