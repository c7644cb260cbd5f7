package watch

import (
	"context"
	"math"

	"go.etcd.io/etcd/api/v3/mvccpb"
)

// inlet is where one leg of a merged watch hands its events over to, and where they wait
// for those of the other shards. It is bounded in batches and bytes; a leg that finds it
// full is set aside, parked, until the merge has taken half. Nobody waits for that but a
// catch-up, and that gives up after a while: who waited here would wait for another shard.
// Guarded by the merge's mutex.
type inlet struct {
	merge  *merge
	leg    *leg
	done   int64     // the shard's revision up to which everything was handed over
	runs   []run     // what waits, oldest first
	bytes  int64     // of it
	parked bool      // the leg is to be brought back when there is room
	need   int64     // for so many bytes
	freed  chan bool // closed when half is free again; nil when nobody waits for that
}

// run is what is left of a batch: events of whole revisions in the order of one shard.
type run struct {
	events []*mvccpb.Event
	bytes  int64
}

func (in *inlet) take(b *batch, events []*mvccpb.Event) bool {
	in.merge.mu.Lock()
	defer in.merge.mu.Unlock()
	if len(events) > 0 {
		if in.full(b.bytes) {
			return false
		}
		in.runs = append(in.runs, run{events, b.bytes})
		in.bytes += b.bytes
		in.merge.held++
	}
	in.done = max(in.done, b.last())
	in.merge.stir()
	return true
}

func (in *inlet) reached(rev int64) {
	in.merge.mu.Lock()
	defer in.merge.mu.Unlock()
	if rev > in.done {
		in.done = rev
		in.merge.stir()
	}
}

func (in *inlet) lag(l *leg) {
	in.merge.mu.Lock()
	defer in.merge.mu.Unlock()
	if in.fits(0) {
		l.watch.session.lag(l)
		return
	}
	in.parked, in.need = true, 0
}

func (in *inlet) ready(_ context.Context, need int64) bool {
	in.merge.mu.Lock()
	defer in.merge.mu.Unlock()
	if in.fits(need) {
		return true
	}
	in.parked, in.need = true, need
	return false
}

func (in *inlet) room(ctx context.Context, need int64) error {
	for {
		in.merge.mu.Lock()
		if in.fits(need) {
			in.merge.mu.Unlock()
			return nil
		}
		if in.freed == nil {
			in.freed = make(chan bool)
		}
		freed := in.freed
		in.merge.mu.Unlock()
		select {
		case <-freed:
		case <-ctx.Done():
			return context.Cause(ctx)
		}
	}
}

// full tells whether n more bytes are too many. A single batch is never too large.
func (in *inlet) full(n int64) bool {
	return len(in.runs) > 0 && (len(in.runs) >= in.merge.slots || in.bytes+n > in.merge.limit)
}

// fits tells whether at most half of the room is used and n more bytes fit.
func (in *inlet) fits(n int64) bool {
	return len(in.runs) <= in.merge.slots/2 && in.bytes <= in.merge.limit/2 && !in.full(n)
}

// head is the global revision of the oldest event that waits.
func (in *inlet) head() int64 {
	if len(in.runs) == 0 {
		return math.MaxInt64
	}
	return in.runs[0].events[0].Kv.ModRevision
}

// cut takes the first n events of the oldest run, and the leg back if that makes room.
func (in *inlet) cut(n int) run {
	r := &in.runs[0]
	head := run{r.events[:n:n], r.bytes * int64(n) / int64(len(r.events))}
	r.events, r.bytes = r.events[n:], r.bytes-head.bytes
	in.bytes -= head.bytes
	if len(r.events) == 0 {
		in.bytes -= r.bytes
		in.runs[0] = run{}
		in.runs = in.runs[1:]
		in.merge.held--
	}
	if len(in.runs) == 0 {
		in.runs = nil
	}
	if in.freed != nil && in.fits(0) {
		close(in.freed)
		in.freed = nil
	}
	if in.parked && in.fits(in.need) {
		in.parked = false
		in.leg.watch.session.lag(in.leg)
	}
	return head
}
