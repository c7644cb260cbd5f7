package order

import (
	"context"
	"errors"
	"slices"
	"sync"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/sharder/sharder/stages"
	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"
)

// fences is what the ordinary writes of this process have met on the shards: a write that
// met a fence has done nothing, waits until the log has closed the fence's batch there,
// and comes back.
type fences struct {
	mu     sync.Mutex
	shards []shardFence
}

type shardFence struct {
	met       int64 // the newest id of a fence that a write met
	returning int   // writes that waited and have no answer from the shard yet
	writing   int   // writes that wait for the shard or for their place in the order

	// Of the newest batch that this process fenced.
	stands time.Time     // when its fence stood; zero when that is gone
	stood  time.Duration // how long it did
	gone   time.Time     // when it went
	kept   bool          // it kept writes of this process waiting

	away error // why the newest call of a batch to the shard failed; nil if that can be done now

	// Of the batch that was closed last: from its fence up to before its end the shard may
	// show a part of it.
	fence, end int64
}

func newFences(shards int) fences { return fences{shards: make([]shardFence, shards)} }

func (f *fences) meet(shard int, id int64) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.shards[shard].met = max(f.shards[shard].met, id)
}

func (f *fences) wasMet(shard int, id int64) bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.shards[shard].met == id
}

// standing notes that a fence of this process stands.
func (f *fences) standing(shard int) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.shards[shard].stands = time.Now()
}

// closed notes how a batch ended on a shard.
func (f *fences) closed(id int64, e End) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if e.Shard >= len(f.shards) {
		return
	}
	s := &f.shards[e.Shard]
	if e.Revision > s.end {
		s.fence, s.end = e.Fence, e.Revision
	}
	if s.kept = s.met == id; !s.stands.IsZero() {
		s.gone = time.Now()
		s.stood, s.stands = s.gone.Sub(s.stands), time.Time{}
	}
}

// answered notes how a call of a batch to a shard ended.
func (f *fences) answered(shard int, err error) {
	if err != nil && !isAway(err) && !isEtcd(err, rpctypes.ErrGRPCNoSpace) {
		err = nil
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	f.shards[shard].away = err
}

// held tells why a batch can't get on with a shard at present; nil if it can, as far as this
// process knows.
func (o *Order) held(shard int) error {
	if err := o.opts.ShardReady(shard); err != nil {
		return err
	}
	o.mu.RLock()
	defer o.mu.RUnlock()
	if o.state.batches.pinned(shard) == nil {
		return nil
	}
	o.fences.mu.Lock()
	defer o.fences.mu.Unlock()
	return o.fences.shards[shard].away
}

// add counts those that come back.
func (f *fences) add(shard, n int) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.shards[shard].returning += n
}

// write counts writes that are under way.
func (f *fences) write(shard, n int) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.shards[shard].writing += n
}

// busy tells whether a fence should not be put on a shard yet: writes of this process that
// waited for the last one have not been there since; or it has kept writes waiting, there are
// some, and they have not had half as much time again as it took.
func (f *fences) busy(shard int) bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	s := &f.shards[shard]
	return s.returning > 0 || s.kept && s.writing > 0 && time.Since(s.gone) < s.stood*3/2
}

// letThrough returns when the ordinary writes of this process have had their share of a shard
// since the last fence, at the latest after limit. Whoever puts the next fence calls it before,
// else a flow of transactions would keep ordinary writes out for ever, and a heavy one nearly so.
func (f *fences) letThrough(ctx context.Context, shard int, limit time.Duration) {
	const look = 500 * time.Microsecond
	for end := time.Now().Add(limit); f.busy(shard) && time.Now().Before(end); {
		if sleep(ctx, look) != nil {
			return
		}
	}
}

// passage is the way of one write past the fences of its shard. Its owner calls send
// before each attempt, sent when the shard has answered, and fenced if that was a fence.
type passage struct {
	order *Order
	shard *stages.Shard
	gone  int64 // a fence of which the log says that it is not there any more
	back  bool  // we count as returning
}

// send waits while a fence is known to stand: a write that is sent all the same would only
// keep the shard busy.
func (p *passage) send(ctx context.Context) error {
	if id := p.order.fenceOn(p.shard.Number); id > 0 {
		return p.await(ctx, id)
	}
	return nil
}

// sent notes that the shard has answered.
func (p *passage) sent() {
	if p.back {
		p.back = false
		p.order.fences.add(p.shard.Number, -1)
	}
}

// fenced waits until the fence is gone that the write met. One that is met again when the
// log says that its batch is done with the shard is nobody's, and is taken away.
func (p *passage) fenced(ctx context.Context, id int64) error {
	if id == p.gone {
		return p.order.removeFence(ctx, p.shard, id)
	}
	return p.await(ctx, id)
}

// await returns when the log says that the batch of a fence is done with the shard.
func (p *passage) await(ctx context.Context, id int64) error {
	o, n := p.order, p.shard.Number
	o.fences.meet(n, id)
	began := time.Now()
	defer o.fenceWaited(n, began)
	if o.position() < id { // we have not heard of that batch
		if _, err := o.Now(ctx); err != nil {
			return unwritten(p.shard, err)
		}
	}
	for {
		ended, err := p.awaitFor(ctx, id, awayAfter)
		if err == nil && !ended {
			err = o.held(n) // and if it is not for that, the next look will tell
		}
		if err != nil {
			return unwritten(p.shard, err)
		}
		if ended {
			p.gone, p.back = id, true
			return nil
		}
	}
}

// awayAfter is how long a write waits for a fence before it asks whether that may ever go.
const awayAfter = time.Second

// awaitFor waits no longer than d for the batch of a fence to be done with the shard.
func (p *passage) awaitFor(ctx context.Context, id int64, d time.Duration) (ended bool, err error) {
	bounded, cancel := context.WithTimeout(ctx, d)
	defer cancel()
	// Counted while the state is locked, so that whoever sees the shard free sees us, too.
	err = p.order.until(bounded, func(s *state) bool {
		if s.batches.on(id, p.shard.Number) {
			return false
		}
		p.order.fences.add(p.shard.Number, 1)
		return true
	})
	if err != nil && bounded.Err() != nil && ctx.Err() == nil {
		return false, nil
	}
	return err == nil, err
}

// fenceOn is the id of the fence that is known to stand on a shard, 0 if none is.
func (o *Order) fenceOn(shard int) int64 {
	o.mu.RLock()
	defer o.mu.RUnlock()
	b := o.state.batches.pinned(shard)
	if b == nil || b.Phase != decided && !o.fences.wasMet(shard, b.ID) {
		return 0
	}
	return b.ID
}

// on tells whether a batch is not done with a shard yet.
func (bs *batches) on(id int64, shard int) bool {
	b := bs.find(id)
	return b != nil && slices.Contains(b.Left, shard)
}

// unwritten is the error for a write that waited for a fence to go.
func unwritten(s *stages.Shard, err error) error {
	if isEtcd(err, rpctypes.ErrGRPCNoSpace) {
		return rpctypes.ErrGRPCNoSpace // what the shard would say, too
	}
	st := status.Convert(stages.ErrorStatus(err))
	code := st.Code()
	if code != codes.DeadlineExceeded && code != codes.Canceled && code != codes.DataLoss {
		code = codes.Unavailable
	}
	return refuse(code, "shard %s: nothing was written: it waited for a transaction over several shards: %s", s.Name, st.Message())
}

// errHalf says that an unguarded Txn may have looked at a shard between the steps of a
// batch.
var errHalf = errors.New("sharder: a part of a transaction over several shards may be missing")

// halfway tells whether somebody who looked at a shard's head at its revision rev may have
// missed something that had been acknowledged when he began, since a batch was being
// applied. The log must have been read after he looked. stale is for one who may be
// answered by a member that lags: then a batch must not be seen in part, that is all.
func (o *Order) halfway(shard int, rev int64, stale bool) bool {
	o.mu.RLock()
	defer o.mu.RUnlock()
	if b := o.state.batches.pinned(shard); b != nil && b.Phase == decided && rev >= b.fence(shard) {
		return true
	}
	o.fences.mu.Lock()
	defer o.fences.mu.Unlock()
	last := &o.fences.shards[shard]
	return rev < last.end && (!stale || rev >= last.fence)
}

// isSerializable tells whether a Txn is answered by any member as it stands. etcd takes
// one that has no operation for such a one, too.
func isSerializable(op *pb.RequestOp) bool {
	txn := op.GetRequestTxn()
	if txn == nil {
		return false
	}
	for _, ops := range [][]*pb.RequestOp{txn.GetSuccess(), txn.GetFailure()} {
		for _, op := range ops {
			if !op.GetRequestRange().GetSerializable() {
				return false
			}
		}
	}
	return true
}
