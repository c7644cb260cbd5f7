package order

import (
	"context"
	"fmt"
	"slices"

	"google.golang.org/grpc/codes"

	"github.com/sharder/sharder/stages"
	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"
)

// EndLeases has leases end, by their ids on the shards, each on the shards that may have
// keys of it; when it returns without an error every read that begins later finds them gone.
// Those on several shards end at one revision, all of this call; those on one shard each at
// its own, as etcd does it. A lease that ended before is no error. After an error some may have
// ended, and it may be called again.
func (o *Order) EndLeases(ctx context.Context, ends map[int64][]*stages.Shard) error {
	var one, several []leaseEnd
	for id, shards := range ends {
		e := leaseEnd{ID: id}
		for _, s := range shards {
			e.Shards = append(e.Shards, s.Number)
		}
		slices.Sort(e.Shards)
		switch e.Shards = slices.Compact(e.Shards); len(e.Shards) {
		case 0:
		case 1:
			one = append(one, e)
		default:
			several = append(several, e)
		}
	}
	for _, ends := range [][]leaseEnd{one, several} {
		if err := o.endTogether(ctx, ends); err != nil {
			return err
		}
	}
	return nil
}

// endTogether ends leases in one batch.
func (o *Order) endTogether(ctx context.Context, ends []leaseEnd) error {
	var shards []int
	for _, e := range ends {
		shards = append(shards, e.Shards...)
	}
	if len(shards) == 0 {
		return nil
	}
	slices.Sort(shards)
	shards = slices.Compact(shards)
	for _, n := range shards {
		if err := o.alarmed(n); err != nil {
			return err
		}
	}
	if err := o.usable(); err != nil {
		return err
	}
	var nonce string
	var failed error
	// What is decided is as good as done to every reader, but the records of the leases
	// may go only when it is done.
	o.runBatch(ctx, shards, []item{{Ends: ends}}, func(b *batch, _ string, err error) {
		if failed = err; b != nil {
			nonce = b.Nonce
		}
	})
	if failed == nil {
		if b := o.batchNamed(nonce); b != nil && !b.finished() {
			failed = refuse(codes.Unavailable, "leases have ended, and are not finished on shards %v yet", o.namesOf(b.Left))
		}
	}
	return failed
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
