package order

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"

	"github.com/sourcegraph/conc"
	"google.golang.org/grpc/codes"

	"github.com/sharder/sharder/stages"
	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"
)

// EndLease has a lease end, by its id on the shards, on all that may have keys of it; when it
// returns without an error every read that begins later finds them gone, all at one
// revision, which it has for itself. With others it may go into one batch with leases of other
// calls. A lease that ended before is no error. After an error it may have
// ended or not, and this may be called again. An error that one shard is to blame for, since it is
// away or does not answer, is a stages.ShardError.
func (o *Order) EndLease(ctx context.Context, shards []*stages.Shard, id int64, withOthers bool) error {
	e := leaseEnd{ID: id}
	for _, s := range shards {
		e.Shards = append(e.Shards, s.Number)
	}
	slices.Sort(e.Shards)
	e.Shards = slices.Compact(e.Shards)
	if len(e.Shards) == 0 {
		return nil
	}
	if err := o.canEnd(e.Shards); err != nil {
		return err
	}
	var err error
	if withOthers {
		c := o.ends.join(e)
		select {
		case <-c.done:
			return c.err
		case <-ctx.Done():
		}
	} else if err = o.endTogether(ctx, e.Shards, []leaseEnd{e}); ctx.Err() == nil {
		return err
	}
	return o.heldUp(e.Shards, errors.Join(context.Cause(ctx), err))
}

// canEnd tells why leases can't end on these shards at present.
func (o *Order) canEnd(shards []int) error {
	for _, n := range shards {
		err := o.alarmed(n)
		if err == nil {
			err = o.opts.ShardReady(n)
		}
		if err != nil {
			return &stages.ShardError{Shard: o.opts.Shards[n], Err: err}
		}
	}
	return o.usable()
}

// heldUp is the error of a call that has no time left: it blames the first of the shards that
// has not done what a batch waits for.
func (o *Order) heldUp(shards []int, err error) error {
	o.mu.RLock()
	defer o.mu.RUnlock()
	for _, n := range shards {
		p := o.state.batches.pinned(n)
		if p != nil && (p.pin() || p.Phase == decided) {
			return &stages.ShardError{Shard: o.opts.Shards[n], Err: err}
		}
	}
	return err
}

// ends gathers leases that are to end on the same shards, so that those which end while a batch
// is under way go into the next one. Leases on other shards do not wait for them: theirs may be away.
type ends struct {
	mu     sync.Mutex
	groups map[string]*endGroup // by the shards
	wake   chan struct{}
}

// endGroup is what waits for the batch that is under way on its shards. A lease waits once,
// whoever asks and however often, so there are no more than leases that end.
type endGroup struct {
	shards  []int
	waiting []*endCall
	byID    map[int64]*endCall // those that wait
	running bool
}

// endCall is one lease that is to end. done is closed when err says how that went.
type endCall struct {
	end  leaseEnd
	done chan struct{}
	err  error
}

// endsAtOnce bounds the leases that end in one batch: writes on its shards wait meanwhile.
const endsAtOnce = 64

func newEnds() ends { return ends{groups: map[string]*endGroup{}, wake: make(chan struct{}, 1)} }

func (e *ends) join(end leaseEnd) *endCall {
	key := fmt.Sprint(end.Shards)
	e.mu.Lock()
	defer e.mu.Unlock()
	g := e.groups[key]
	if g == nil {
		g = &endGroup{shards: end.Shards, byID: map[int64]*endCall{}}
		e.groups[key] = g
	}
	c := g.byID[end.ID]
	if c == nil {
		c = &endCall{end: end, done: make(chan struct{})}
		g.byID[end.ID] = c
		g.waiting = append(g.waiting, c)
	}
	select {
	case e.wake <- struct{}{}:
	default:
	}
	return c
}

// idle are the groups that wait and don't run; they count as running from now on.
func (e *ends) idle() (keys []string) {
	e.mu.Lock()
	defer e.mu.Unlock()
	for key, g := range e.groups {
		if !g.running {
			g.running = true
			keys = append(keys, key)
		}
	}
	return keys
}

// next takes what waits in a group; with nothing there the group is gone.
func (e *ends) next(key string) (shards []int, calls []*endCall) {
	e.mu.Lock()
	defer e.mu.Unlock()
	g := e.groups[key]
	n := min(len(g.waiting), endsAtOnce)
	calls = g.waiting[:n:n]
	for _, c := range calls {
		delete(g.byID, c.end.ID)
	}
	if g.waiting = g.waiting[n:]; n == 0 {
		delete(e.groups, key)
	}
	return g.shards, calls
}

// runEnds has the leases of EndLease end, until ctx ends.
func (o *Order) runEnds(ctx context.Context) {
	var wg conc.WaitGroup
	defer wg.Wait()
	for {
		for _, key := range o.ends.idle() {
			wg.Go(func() { o.runEndsOf(ctx, key) })
		}
		select {
		case <-o.ends.wake:
		case <-ctx.Done():
			return
		}
	}
}

func (o *Order) runEndsOf(ctx context.Context, key string) {
	for {
		shards, calls := o.ends.next(key)
		if len(calls) == 0 {
			return
		}
		all := make([]leaseEnd, len(calls))
		for i, c := range calls {
			all[i] = c.end
		}
		err := o.canEnd(shards)
		if err == nil {
			err = o.endTogether(ctx, shards, all)
		}
		for _, c := range calls {
			c.err = err
			close(c.done)
		}
	}
}

// endTries is how often leases go into a batch that is rolled back before whoever waits for
// them is told.
const endTries = 3

// endTogether ends leases that lie on the same shards in one batch, in another one if that is
// rolled back because it had to wait for too long.
func (o *Order) endTogether(ctx context.Context, shards []int, ends []leaseEnd) (err error) {
	for range endTries {
		var outcome string
		var where *stages.ShardError
		outcome, err = o.endOnce(ctx, shards, ends)
		if outcome != RolledBack || errors.As(err, &where) || ctx.Err() != nil {
			return err
		}
	}
	return o.heldUp(shards, err)
}

// endOnce does it in one batch, and tells how that ended.
func (o *Order) endOnce(ctx context.Context, shards []int, ends []leaseEnd) (outcome string, err error) {
	var nonce string
	// What is decided is as good as done to every reader, but the records of the leases
	// may go only when it is done.
	items := make([]item, len(ends))
	for i, e := range ends {
		items[i] = item{Ends: []leaseEnd{e}}
	}
	o.runBatch(ctx, shards, items, func(b *batch, how string, why error) {
		if outcome, err = how, why; b != nil {
			nonce = b.Nonce
		}
	})
	if b := o.batchNamed(nonce); b != nil && !b.finished() {
		err = &stages.ShardError{Shard: o.opts.Shards[b.Left[0]],
			Err: refuse(codes.Unavailable, "leases have ended, and are not finished on shards %v yet", o.namesOf(b.Left))}
	}
	return outcome, err
}

// evaluateEnds finds the shards on which any of the leases has keys.
func (o *Order) evaluateEnds(ctx context.Context, ends []leaseEnd, fences []Covered) (Outcome, error) {
	type place struct {
		id    int64
		fence Covered
	}
	var places []place
	for _, e := range ends {
		for _, f := range fences {
			if slices.Contains(e.Shards, f.Shard) {
				places = append(places, place{e.ID, f})
			}
		}
	}
	found, err := some(ctx, places, func(ctx context.Context, p place) (bool, error) {
		return o.hasKeys(ctx, o.opts.Shards[p.fence.Shard], p.id, p.fence.Revision)
	})
	if err != nil {
		return Outcome{}, err
	}
	out := Outcome{Order: &Arrangement{ByKey: true}}
	for i, has := range found {
		if n := places[i].fence.Shard; has && !slices.Contains(out.Writes, n) {
			out.Writes = append(out.Writes, n)
		}
	}
	if slices.Sort(out.Writes); len(out.Writes) < 2 {
		out.Order = nil
	}
	return out, nil
}

// hasKeys tells whether a lease has keys on a shard that is fenced. etcd answers that from
// the member that leads, or believes it does. A member that has the fence has heard of a leader
// that has it, so its answer is not older than that; and what it lists is looked up, since
// a revision is given out for it.
func (o *Order) hasKeys(ctx context.Context, s *stages.Shard, id, fence int64) (bool, error) {
	ctx, cancel := context.WithTimeout(ctx, o.opts.StepTimeout)
	defer cancel()
	for {
		r, err := pb.NewLeaseClient(s.Conn).LeaseTimeToLive(ctx, &pb.LeaseTimeToLiveRequest{ID: id, Keys: true})
		switch {
		case isEtcd(err, rpctypes.ErrGRPCLeaseNotFound):
			return false, nil
		case err != nil:
			return false, &stages.ShardError{Shard: s, Err: err}
		case r.Header.GetRevision() < fence:
			if err := sleep(ctx, minPause); err != nil {
				return false, &stages.ShardError{Shard: s, Err: err}
			}
			continue
		}
		for _, key := range r.Keys {
			kv, err := pb.NewKVClient(s.Conn).Range(ctx, &pb.RangeRequest{Key: key, Revision: fence})
			if err != nil {
				return false, &stages.ShardError{Shard: s, Err: err}
			}
			if len(kv.Kvs) > 0 && kv.Kvs[0].Lease == id {
				return true, nil
			}
		}
		return false, nil
	}
}

// removeFence takes a fence away that belongs to no batch which is open on the shard. A
// batch without items pins the shard meanwhile: so nothing needs a fence there.
func (o *Order) removeFence(ctx context.Context, s *stages.Shard, id int64) error {
	var failed error
	o.runBatch(ctx, []int{s.Number}, []item{}, func(_ *batch, _ string, err error) { failed = err })
	if failed != nil {
		return unwritten(s, fmt.Errorf("the fence of batch %d, which has ended, can't be removed: %w", id, failed))
	}
	return nil
}
