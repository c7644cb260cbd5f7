package order

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/sourcegraph/conc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/sharder/sharder/pipeline"
	"github.com/sharder/sharder/stages"
	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"
)

// drive carries one batch on, as far as it goes: from whatever the log says about it to its
// end on every shard. Every step may be done by several drives at once, in this process or
// in others, and by one that was held up and wakes when all is over; what the log and the
// shards hold decides which of them counts.
type drive struct {
	order    *Order
	nonce    string
	items    []item // nil until the record was read
	foreign  bool   // opened under other routes than ours
	takeover bool
	why      error // why it was rolled back, as far as this drive knows
	told     func(b *batch, outcome string, err error)
	step     time.Time
}

// remembered is for how many entries of the log the outcome of a batch is kept, and an Open
// that was held up still counts.
const remembered = 10_000

// queueTimeout is how long a batch waits behind others before its coordinator gives it up,
// and twice that until anybody does.
const queueTimeout = 2 * time.Second

// notDone is why a batch was not done: nothing of it happened.
type notDone struct{ err error }

func (e *notDone) Error() string { return e.err.Error() }
func (e *notDone) Unwrap() error { return e.err }

// runBatch has a batch of items done on its shards, the numbers of which ascend. It opens
// it, drives it to its end, and returns when all its shards are done with it, somebody else
// does the rest, or ctx ended. As soon as the outcome is known it calls told, once: with the
// batch as it is from then on or, if nothing of it happened or that is not known, with nil,
// RolledBack or Failed, and what to tell the clients. A pin is told of when it is closed.
func (o *Order) runBatch(ctx context.Context, shards []int, items []item, told func(b *batch, outcome string, err error)) {
	d := &drive{order: o, nonce: newNonce(), items: items, step: time.Now()}
	o.drives.enter(d.nonce) // nobody else has this nonce
	defer o.drives.leave(d.nonce)
	b, err := d.open(ctx, shards, countItems(items))
	var never *notDone
	switch {
	case errors.As(err, &never):
		told(nil, RolledBack, never.err)
		return
	case err != nil:
		told(nil, Failed, err)
		return
	}
	d.told = told
	if err = d.traced(ctx, StepOpen, b.ID, shards); err == nil {
		err = d.run(ctx)
	}
	if err != nil {
		d.tell(nil, Failed, refuse(codes.Unavailable, "transaction over several shards: outcome unknown: %v", err))
	}
}

// tell tells what became of the batch, the first time.
func (d *drive) tell(b *batch, outcome string, err error) {
	if d.told != nil {
		d.told(b, outcome, err)
		d.told = nil
	}
}

// countItems is 0 for a pin: leases that end and lie on one shard each.
func countItems(items []item) int {
	for _, it := range items {
		if it.Txn != nil {
			return len(items)
		}
		for _, e := range it.Ends {
			if len(e.Shards) > 1 {
				return len(items)
			}
		}
	}
	return 0
}

func newNonce() string { return rand.Text() }

// open writes the entry and the record, and finds the batch in the log. After an append
// without an answer it looks before it appends again; what comes late counts once.
func (d *drive) open(ctx context.Context, shards []int, items int) (*batch, error) {
	o := d.order
	text, err := encodeItems(o.opts.Fingerprint, d.items)
	if err != nil {
		return nil, &notDone{refuse(codes.InvalidArgument, "transaction over several shards: %v", err)}
	}
	o.mu.RLock()
	until := o.state.number + remembered
	o.mu.RUnlock()
	e := Entry{Open: &Open{Nonce: d.nonce, Until: until, Shards: shards, Items: items, By: o.opts.Name, At: time.Now().UnixMilli()}}
	for tried := false; ; tried = true {
		pos, err := o.appendOpen(ctx, e.encode(), recordKey{until, d.nonce}, text)
		refused := err
		if err == nil {
			err = o.until(ctx, func(s *state) bool { return s.pos >= pos })
		}
		if err != nil {
			if _, err = o.Now(ctx); err != nil {
				return nil, refuse(codes.Unavailable, "transaction over several shards: outcome unknown: %v", err)
			}
		}
		b, late := o.batchNamed(d.nonce), o.number() >= until
		switch {
		case b != nil:
			return b, nil
		case !tried && isRefusal(refused):
			return nil, &notDone{o.away(refused)}
		case late && o.drives.skipped(d.nonce):
			return nil, errLongAgo
		case late:
			return nil, &notDone{refuse(codes.Unavailable, "transaction over several shards: the order log did not take it in time; nothing was done")}
		}
		if sleep(ctx, minPause) != nil {
			return nil, refuse(status.FromContextError(ctx.Err()).Code(), "transaction over several shards: outcome unknown: it may still begin")
		}
	}
}

// errLongAgo is for a process that slept for so long that the log does not tell any more what
// became of its batch.
var errLongAgo = refuse(codes.Unavailable, "transaction over several shards: outcome unknown: the order log does not reach back to it any more")

// isRefusal tells whether an append that failed is not under way any more: what of it is not
// in the log by now never will be.
func isRefusal(err error) bool {
	return errors.Is(err, pipeline.ErrFull) || isEtcd(err, rpctypes.ErrGRPCNoSpace) ||
		isEtcd(err, rpctypes.ErrGRPCRequestTooManyRequests) || isEtcd(err, rpctypes.ErrGRPCRequestTooLarge)
}

// appendOpen is one bounded attempt; a large record has time for each of its pieces.
func (o *Order) appendOpen(ctx context.Context, entry []byte, key recordKey, record []byte) (int64, error) {
	bounded, cancel := context.WithTimeout(ctx, appendTimeout*time.Duration(1+len(record)/recordPiece))
	defer cancel()
	return o.journal.Open(bounded, entry, key.until, key.nonce, record)
}

// run goes on until the batch has left every shard. Its error means that ctx ended, the log
// is lost, or a test had it die; then others will go on.
func (d *drive) run(ctx context.Context) error {
	o := d.order
	for pause, told := minPause, false; ; {
		b := o.batchNamed(d.nonce)
		if b == nil {
			d.tell(nil, Failed, errLongAgo)
			return nil
		}
		switch {
		case b.Phase == rolledBack:
			d.tell(nil, RolledBack, d.reason())
		case b.Phase == decided, b.finished():
			d.tell(b, "", nil)
		}
		if b.finished() {
			d.forget(ctx, b)
			return nil
		}
		err := d.advance(ctx, b)
		switch {
		case ctx.Err() != nil:
			return context.Cause(ctx)
		case o.lost.Load() != nil:
			return *o.lost.Load()
		case errors.Is(err, errDied):
			return err
		case err == nil:
			pause, told = minPause, false
			continue
		case pause == maxPause && !told:
			told = true
			o.opts.Logger.Warn("a transaction does not get on", "batch", b.ID, "step", b.Phase.String(), "shards", o.namesOf(b.Left), "error", err)
		}
		o.opts.Logger.Debug("a batch does not get on", "batch", b.ID, "phase", b.Phase, "error", err)
		// Perhaps others are further than we know.
		if _, err := o.Now(ctx); err != nil || !errors.Is(err, errEnded) {
			if sleep(ctx, pause/2+o.opts.Random(pause)) != nil {
				return context.Cause(ctx)
			}
			pause = min(2*pause, maxPause)
		}
	}
}

// errDied is why a drive ends in which a test has put a failure.
var errDied = errors.New("the drive of the batch was ended")

// advance does what comes next.
func (d *drive) advance(ctx context.Context, b *batch) error {
	if d.items == nil && b.Phase != rolledBack {
		if err := d.load(ctx, b); err != nil {
			return err
		}
	}
	switch {
	case d.foreign && !b.pin() && b.Phase != rolledBack:
		return d.wind(ctx, b)
	case b.Phase == queued:
		return d.wait(ctx, b)
	case b.Phase == active && !b.pin():
		return d.decide(ctx, b)
	}
	return d.finish(ctx, b)
}

// load reads the record. It is gone only if the batch is.
func (d *drive) load(ctx context.Context, b *batch) error {
	text, err := d.order.journal.LoadRecord(ctx, b.Until, b.Nonce)
	if err != nil {
		return err
	}
	if text == nil {
		if _, err := d.order.Now(ctx); err != nil {
			return err
		}
		if now := d.order.batchNamed(d.nonce); now == nil || now.finished() {
			return errEnded
		}
		return d.withoutRecord(ctx, b)
	}
	routes, items, err := decodeItems(text)
	if err == nil {
		d.items, d.foreign = items, routes != d.order.opts.Fingerprint
	}
	return err
}

// errForeign says that only a sharder with the routes of the one that opened can go on.
var errForeign = errors.New("it was decided under other routes than those of this sharder")

// wind does what may be done about a batch that was opened under other routes: where its
// keys lie is not ours to say. As long as it is not decided it can be rolled back, if it has been
// left alone for so long that nobody with these routes seems to be there.
func (d *drive) wind(ctx context.Context, b *batch) error {
	if b.Phase == decided {
		return errForeign
	}
	patient, cancel := context.WithTimeout(ctx, 2*queueTimeout)
	defer cancel()
	err := d.order.until(patient, func(s *state) bool {
		now := s.batches.find(b.ID)
		return now == nil || now.Phase != b.Phase
	})
	if err == nil || patient.Err() == nil || ctx.Err() != nil {
		return err
	}
	return d.append(ctx, Entry{Decided: &Decided{ID: b.ID, RolledBack: true}})
}

// withoutRecord rolls a batch back that nobody can do. For one that is decided only an operator
// can help: what it was to write is lost with the record.
func (d *drive) withoutRecord(ctx context.Context, b *batch) error {
	if b.Phase <= active && !b.pin() {
		d.why = refuse(codes.Unavailable, "transaction over several shards: the order cluster has lost what it was about; nothing was done")
		if err := d.append(ctx, Entry{Decided: &Decided{ID: b.ID, RolledBack: true}}); err != nil {
			return err
		}
		return errEnded // b is not what it was
	}
	if b.pin() { // its leases are still owed, and will be ended by another
		d.items = []item{}
		return nil
	}
	return fmt.Errorf("%w: the record of batch %d is missing", errCorrupt, b.ID)
}

// wait waits until a queued batch is first on its shards; too long, and it is given up.
func (d *drive) wait(ctx context.Context, b *batch) error {
	limit := queueTimeout
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
		items, err = d.evaluate(ctx, b, fences)
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
		rev, err := o.putFence(ctx, b.ID, o.opts.Shards[n])
		o.fences.standing(n)
		return Covered{Shard: n, Revision: rev}, err
	})
	return p(ctx, b.Shards)
}

// evaluateTimeouts is how many times StepTimeout an evaluation may take, of all that it
// reads: the shards are fenced meanwhile.
const evaluateTimeouts = 3

// evaluate says what becomes of each item on the state at the fences.
func (d *drive) evaluate(ctx context.Context, b *batch, fences []Covered) ([]Outcome, error) {
	o := d.order
	if o.mustCover(d.items, fences) {
		if err := d.append(ctx, Entry{Fenced: &Fenced{ID: b.ID, At: fences}}); err != nil {
			return nil, err
		}
		if err := d.traced(ctx, StepFenced, b.ID, b.Shards); err != nil {
			return nil, err
		}
	}
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

// append appends an entry about the batch and waits until it is replayed. After an error it
// may be there or come yet.
func (d *drive) append(ctx context.Context, e Entry) error {
	bounded, cancel := context.WithTimeout(ctx, appendTimeout)
	defer cancel()
	pos, err := d.order.journal.Append(bounded, e.encode())
	if err != nil {
		return err
	}
	return d.order.until(ctx, func(s *state) bool { return s.pos >= pos })
}

// closePatience is how long those shards that are done with a batch wait for the others, so
// that one entry lets all go.
const closePatience = 30 * time.Millisecond

// ended is what became of a batch on one shard.
type ended struct {
	end End
	err error
}

// finish applies the batch on the shards that it has not left, and lets those go that are
// done. Its error is one of those that are not.
func (d *drive) finish(ctx context.Context, b *batch) error {
	o := d.order
	ctx, cancel := context.WithCancel(ctx)
	var wg conc.WaitGroup
	defer wg.Wait()
	defer cancel()
	done := make(chan ended, len(b.Left))
	for _, n := range b.Left {
		wg.Go(func() {
			began := time.Now() // the shards do it at the same time
			a := &applying{order: o, batch: *b, items: d.items, shard: o.opts.Shards[n]}
			end, err := a.run(ctx)
			if err == nil {
				err = d.timed(ctx, StepApply, b.ID, []int{n}, time.Since(began))
			}
			done <- ended{end, err}
		})
	}
	var failed error
	for left := len(b.Left); left > 0; {
		ends, err := gatherEnds(done, &left)
		if failed = errors.Join(failed, err); len(ends) == 0 {
			continue
		}
		if err := d.append(ctx, Entry{Closed: &Closed{ID: b.ID, Ends: ends}}); err != nil {
			return err
		}
		shards := make([]int, len(ends))
		for i, e := range ends {
			shards[i] = e.Shard
		}
		if err := d.traced(ctx, StepClose, b.ID, shards); err != nil {
			return err
		}
	}
	return failed
}

// gatherEnds takes results until none is left or those that are there have waited long
// enough for the others.
func gatherEnds(done <-chan ended, left *int) (ends []End, failed error) {
	var late <-chan time.Time
	for *left > 0 {
		select {
		case e := <-done:
			*left--
			if e.err != nil {
				failed = errors.Join(failed, e.err)
				continue
			}
			if ends = append(ends, e.end); late == nil {
				t := time.NewTimer(closePatience)
				defer t.Stop()
				late = t.C
			}
		case <-late:
			return sortedEnds(ends), failed
		}
	}
	return sortedEnds(ends), failed
}

func sortedEnds(ends []End) []End {
	slices.SortFunc(ends, func(a, b End) int { return a.Shard - b.Shard })
	return ends
}

// forget removes the record. Whoever still drives the batch finds in the log that it has ended.
func (d *drive) forget(ctx context.Context, b *batch) {
	if err := d.order.journal.DropRecord(ctx, b.Until, b.Nonce); err != nil {
		d.order.opts.Logger.Debug("the record of a batch stays for the sweep", "batch", b.ID, "error", err)
	}
}

// traced tells of a step that is done, which began when the one before it ended.
func (d *drive) traced(ctx context.Context, name string, id int64, shards []int) error {
	elapsed := time.Since(d.step)
	d.step = time.Now()
	return d.timed(ctx, name, id, shards, elapsed)
}

// timed tells of a step that is done.
func (d *drive) timed(ctx context.Context, name string, id int64, shards []int, elapsed time.Duration) error {
	s := Step{Name: name, Batch: id, Items: countItems(d.items), Shards: shards, Elapsed: elapsed, Takeover: d.takeover}
	if err := d.order.traced(ctx, s); err != nil {
		return fmt.Errorf("%w at %s: %w", errDied, name, err)
	}
	return nil
}
