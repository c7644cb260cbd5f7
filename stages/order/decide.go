package order

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/sharder/sharder/pipeline"
	"github.com/sharder/sharder/stages"
	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
)

// wait waits until a queued batch is first on its shards; too long, and it is given up.
func (d *drive) wait(ctx context.Context, b *batch) error {
	limit := d.order.opts.QueueTimeout
	if d.takeover {
		limit = 0 // whoever takes it over has waited before
	}
	patient, cancel := context.WithTimeout(ctx, limit)
	defer cancel()
	err := d.order.until(patient, func(s *state) bool {
		now := s.batches.find(b.ID)
		return now == nil || now.Phase != queued
	})
	if err == nil || patient.Err() == nil || ctx.Err() != nil {
		return err
	}
	d.why = refuse(codes.Unavailable, "transaction over several shards: those before it on its shards do not end (%s); nothing was done", d.order.blockers(b))
	return d.append(ctx, Entry{Decided: &Decided{ID: b.ID, RolledBack: true}})
}

// blockers names what a queued batch waits for.
func (o *Order) blockers(b *batch) string {
	o.mu.RLock()
	defer o.mu.RUnlock()
	for _, n := range b.Shards {
		if p := o.state.batches.pinned(n); p != nil && p.ID != b.ID {
			return fmt.Sprintf("batch %d of %s on shard %s, %s", p.ID, p.By, o.opts.Shards[n].Name, p.Phase)
		}
	}
	return "others that wait"
}

// decide fences the shards, evaluates, and appends the decision. Where that is not possible
// the batch is rolled back.
func (d *drive) decide(ctx context.Context, b *batch) error {
	o := d.order
	fences, err := d.fence(ctx, b)
	if err == nil {
		err = d.traced(ctx, StepFence, b.ID, b.Shards)
	}
	var items []Outcome
	if err == nil {
		if err := d.coverFences(ctx, b, fences); err != nil {
			return err
		}
		items, err = d.evaluate(ctx, fences)
	}
	entry := &Decided{ID: b.ID, At: fences, Items: items}
	switch {
	case ctx.Err() != nil || errors.Is(err, errDied) || errors.Is(err, errEnded) || o.lost.Load() != nil:
		return err
	case err != nil:
		d.why = err
		o.opts.Logger.Debug("a batch is rolled back", "batch", b.ID, "error", err)
		entry = &Decided{ID: b.ID, RolledBack: true}
	}
	if err := d.append(ctx, Entry{Decided: entry}); err != nil {
		return err
	}
	return d.traced(ctx, StepDecide, b.ID, b.Shards)
}

// reason is why it was rolled back.
func (d *drive) reason() error {
	if d.why != nil {
		return d.why
	}
	return errElsewhere
}

var errElsewhere = refuse(codes.Unavailable, "transaction over several shards: another sharder rolled it back; nothing was done")

// breather is how long a fence waits, at most, for the writes that the one before it has
// kept waiting.
const breather = 20 * time.Millisecond

// fence puts the fences, all at once.
func (d *drive) fence(ctx context.Context, b *batch) ([]Covered, error) {
	o := d.order
	p := pipeline.Scatter(func(ctx context.Context, n int) (Covered, error) {
		o.fences.letThrough(ctx, n, breather)
		rev, err := o.insistOnFence(ctx, b.ID, o.opts.Shards[n])
		o.fences.standing(n)
		return Covered{Shard: n, Revision: rev}, err
	})
	return p(ctx, b.Shards)
}

// evaluateTimeouts is how many times StepTimeout an evaluation may take, of all that it
// reads: the shards are fenced meanwhile.
const evaluateTimeouts = 3

// evaluate says what becomes of each item on the state at the fences.
func (d *drive) evaluate(ctx context.Context, fences []Covered) ([]Outcome, error) {
	o := d.order
	at := o.cutAt(fences)
	ctx, cancel := context.WithTimeout(ctx, evaluateTimeouts*o.opts.StepTimeout)
	defer cancel()
	return some(ctx, d.items, func(ctx context.Context, it item) (Outcome, error) {
		if it.Txn == nil {
			return o.evaluateEnds(ctx, it.Ends, fences)
		}
		return o.evaluateTxn(ctx, &it, at)
	})
}

// coverFences has what is before the fences covered, if the items can't be evaluated without.
// An error is one of the order cluster, and no reason to roll the batch back.
func (d *drive) coverFences(ctx context.Context, b *batch, fences []Covered) error {
	if !d.order.mustCover(d.items, fences) {
		return nil
	}
	if err := d.append(ctx, Entry{Fenced: &Fenced{ID: b.ID, At: fences}}); err != nil {
		return err
	}
	return d.traced(ctx, StepFenced, b.ID, b.Shards)
}

// mustCover tells whether what is before the fences has to be covered before the items can
// be evaluated: they read, and something there has no number yet.
func (o *Order) mustCover(items []item, fences []Covered) bool {
	o.mu.RLock()
	defer o.mu.RUnlock()
	open := slices.ContainsFunc(fences, func(f Covered) bool { return o.state.covered[f.Shard] < f.Revision-1 })
	return open && slices.ContainsFunc(items, func(it item) bool { return it.Txn != nil && !onlyPuts(it.Txn) })
}

// onlyPuts tells whether a Txn can be evaluated without reading anything.
func onlyPuts(txn *pb.TxnRequest) bool {
	if len(txn.Compare) > 0 {
		return false
	}
	for _, op := range txn.Success {
		p := op.GetRequestPut()
		if p == nil || p.IgnoreValue || p.IgnoreLease {
			return false
		}
	}
	return true
}

// cutAt is the newest moment with some shards as they are at their fences.
func (o *Order) cutAt(fences []Covered) stages.Cut {
	cut := o.Replayed()
	for _, f := range fences {
		cut.At[f.Shard] = f.Revision
	}
	cut.Pending = nil
	return cut
}

func (o *Order) evaluateTxn(ctx context.Context, it *item, at stages.Cut) (Outcome, error) {
	for _, b := range it.Leases {
		live, err := o.leases.Live(ctx, o.opts.Shards[b.Shard], b.ID)
		if err != nil || !live {
			return Outcome{Again: true}, err
		}
	}
	v, err := o.executor.evaluate(ctx, it.Txn, at, it.isBound)
	switch {
	case err != nil:
		return Outcome{}, err
	case v.Err != nil:
		return Outcome{Path: v.Path, Error: status.Convert(v.Err).Message()}, nil
	}
	return Outcome{Path: v.Path, Writes: v.Writes, Order: v.Order}, nil
}
