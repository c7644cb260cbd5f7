package order

import (
	"context"
	"fmt"
	"strconv"
	"strings"
	"time"

	"google.golang.org/grpc/codes"

	"github.com/sharder/sharder/stages"
	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	"go.etcd.io/etcd/api/v3/mvccpb"
)

// What a batch keeps on a shard is in two keys. The fence keeps writes away and counts the
// steps that are done; the closed key says that the batch of an id, and all before it, are
// done with the shard. Both begin with the id in a fixed width, so that they compare as
// bytes the way ids do as numbers:
//
//	fence   ID/STEPS/REVISIONS        revisions of all steps but the newest, which has the key's own
//	closed  ID/FENCE/KIND/REVISIONS   the fence's revision, 0 without; see closedKind
//
// The fence's create revision is that at which it was put.
const closedKey = stages.ClosedKey

// closedKind says what the revision of the closed key itself is.
type closedKind int

const (
	closedApart closedKind = iota // sharder's own
	closedStep                    // that of the last step, too
	closedEnds                    // sharder's own; between the fence and it leases have ended, each at a revision
)

func idText(id int64) string { return fmt.Sprintf("%020d", id) }

// standing is a fence as it stands on a shard.
type standing struct {
	id    int64
	fence int64   // the revision at which it was put
	mod   int64   // of its last change
	steps []int64 // the revisions of the steps that are done
}

// value is what the fence says after the step that is about to be made: those that are done.
func fenceValue(id int64, steps int, done []int64) string {
	return fmt.Sprintf("%s/%d/%s", idText(id), steps, joinRevisions(done))
}

func closedValue(id, fence int64, kind closedKind, done []int64) string {
	return fmt.Sprintf("%s/%d/%d/%s", idText(id), fence, kind, joinRevisions(done))
}

func joinRevisions(revs []int64) string {
	texts := make([]string, len(revs))
	for i, r := range revs {
		texts[i] = strconv.FormatInt(r, 10)
	}
	return strings.Join(texts, ",")
}

// parseNumbers reads fields that are numbers, separated by slashes, and then revisions.
func parseNumbers(text string, fields int) (numbers, revs []int64, err error) {
	parts := strings.SplitN(text, "/", fields+1)
	if len(parts) != fields+1 {
		return nil, nil, fmt.Errorf("%w: %q", errCorrupt, text)
	}
	last := parts[fields]
	parts = parts[:fields]
	if last != "" {
		parts = append(parts, strings.Split(last, ",")...)
	}
	for _, p := range parts {
		n, err := strconv.ParseInt(p, 10, 64)
		if err != nil || n < 0 {
			return nil, nil, fmt.Errorf("%w: %q", errCorrupt, text)
		}
		numbers = append(numbers, n)
	}
	return numbers[:fields], numbers[fields:], nil
}

// parseFence reads the fence on a shard; nil if there is none.
func parseFence(kv *mvccpb.KeyValue) (*standing, error) {
	if kv == nil {
		return nil, nil
	}
	n, revs, err := parseNumbers(string(kv.Value), 2)
	if err != nil {
		return nil, fmt.Errorf("fence: %w", err)
	}
	f := &standing{id: n[0], fence: kv.CreateRevision, mod: kv.ModRevision, steps: revs}
	if n[1] > 0 {
		f.steps = append(f.steps, kv.ModRevision)
	}
	return f, nil
}

// parseClosed reads the closed key: the id, and how that batch ended on the shard.
func parseClosed(shard int, kv *mvccpb.KeyValue) (id int64, e End, err error) {
	if kv == nil {
		return 0, e, fmt.Errorf("%w: the closed key is gone", errCorrupt)
	}
	if string(kv.Value) == stages.NoneClosed {
		return 0, e, nil
	}
	n, revs, err := parseNumbers(string(kv.Value), 3)
	if err != nil {
		return 0, e, fmt.Errorf("closed key: %w", err)
	}
	e = End{Shard: shard, Fence: n[1], Steps: revs, Revision: kv.ModRevision}
	if closedKind(n[2]) == closedStep {
		e.Steps = append(e.Steps, kv.ModRevision)
	}
	return n[0], e, nil
}

// ledger is what a shard holds about batches at one moment.
type ledger struct {
	fence  *standing // nil if none stands
	closed int64     // the newest id that is closed
	end    End       // of that
	routes string
}

// ledgerOps read what readLedger understands.
func ledgerOps() []*pb.RequestOp {
	return []*pb.RequestOp{getOp(fenceKey), getOp(closedKey), getOp(RoutesKey)}
}

func readLedger(shard int, responses []*pb.ResponseOp) (l ledger, err error) {
	var kvs [3]*mvccpb.KeyValue
	for i := range min(3, len(responses)) {
		if found := responses[i].GetResponseRange().GetKvs(); len(found) > 0 {
			kvs[i] = found[0]
		}
	}
	if l.fence, err = parseFence(kvs[0]); err != nil {
		return l, err
	}
	if l.closed, l.end, err = parseClosed(shard, kvs[1]); err != nil {
		return l, err
	}
	l.routes = string(kvs[2].GetValue())
	return l, nil
}

// shardTxn sends a Txn of sharder's own to a shard, beside its lane: those whom a batch
// keeps waiting may hold all of that.
func (o *Order) shardTxn(ctx context.Context, s *stages.Shard, t *pb.TxnRequest) (*pb.TxnResponse, error) {
	bounded, cancel := context.WithTimeout(ctx, o.opts.StepTimeout)
	defer cancel()
	r, err := pb.NewKVClient(s.Conn).Txn(bounded, t)
	if ctx.Err() == nil {
		o.fences.answered(s.Number, err)
	}
	if err != nil {
		return nil, &stages.ShardError{Shard: s, Err: err}
	}
	return r, o.sameCluster(s.Number, r.Header)
}

// errEnded says that the batch has ended on the shard meanwhile: the log says how, or will.
var errEnded = fmt.Errorf("the batch has ended on the shard")

// fenceTxn puts the fence of a batch, unless another stands, the batch or a later one has
// ended on the shard, or the routes are others.
func fenceTxn(id int64, fingerprint string) *pb.TxnRequest {
	return &pb.TxnRequest{
		Compare: []*pb.Compare{versionIs(fenceKey, 0), closedBelow(id), valueIs(RoutesKey, []byte(fingerprint))},
		Success: []*pb.RequestOp{putOp(fenceKey, []byte(fenceValue(id, 0, nil)))},
		Failure: ledgerOps(),
	}
}

// closedBelow holds on a shard where neither a batch nor a later one has ended.
func closedBelow(id int64) *pb.Compare {
	return &pb.Compare{
		Key: []byte(closedKey), Target: pb.Compare_VALUE, Result: pb.Compare_LESS,
		TargetUnion: &pb.Compare_Value{Value: []byte(idText(id))},
	}
}

// putFence has the fence of a batch stand on a shard, and gives its revision.
func (o *Order) putFence(ctx context.Context, id int64, s *stages.Shard) (int64, error) {
	for {
		r, err := o.shardTxn(ctx, s, fenceTxn(id, o.opts.Fingerprint))
		if err != nil {
			return 0, err
		}
		if r.Succeeded {
			return r.Header.Revision, nil
		}
		l, err := readLedger(s.Number, r.Responses)
		switch {
		case err != nil:
			return 0, o.raiseAlarm(s.Number, "what it holds about transactions can't be read: %v", err)
		case l.fence != nil && l.fence.id == id:
			return l.fence.fence, nil
		case l.closed >= id:
			return 0, o.endedAt(ctx, s, l.closed)
		case l.routes != o.opts.Fingerprint:
			return 0, refuse(codes.FailedPrecondition, "shard %s has other routes than this sharder, or has lost its stamp; nothing was written", s.Name)
		case l.fence != nil:
			if _, err := o.removeStale(ctx, id, s, l.fence); err != nil {
				return 0, err
			}
		}
	}
}

// insistOnFence is putFence for a shard that may have no leader at this moment: one that does not
// answer is asked again, as long as there is patience and nobody knows that it is away. A fence is
// put once, however often that is asked for.
func (o *Order) insistOnFence(ctx context.Context, id int64, s *stages.Shard) (int64, error) {
	const pause = 50 * time.Millisecond
	for end := time.Now().Add(o.opts.FencePatience); ; {
		rev, err := o.putFence(ctx, id, s)
		if err == nil || !isAway(err) || o.opts.ShardReady(s.Number) != nil || !time.Now().Before(end) || sleep(ctx, pause) != nil {
			return rev, err
		}
	}
}

// endedAt is the error for a shard that has closed a batch of our id or above: the log
// must know of it.
func (o *Order) endedAt(ctx context.Context, s *stages.Shard, closed int64) error {
	if _, err := o.Now(ctx); err != nil {
		return err
	}
	if o.position() < closed {
		return o.loseLog(fmt.Errorf("the order cluster went back in time: shard %s has closed batch %d, and the log ends at %d", s.Name, closed, o.position()))
	}
	return errEnded
}

// removeStale removes the fence of a batch that is not ours while ours holds the pin: that
// one has ended, and its fence came late or could not be closed for want of space. It gives
// the revision at which the fence went, 0 if it was gone.
func (o *Order) removeStale(ctx context.Context, id int64, s *stages.Shard, f *standing) (int64, error) {
	if _, err := o.Now(ctx); err != nil {
		return 0, err
	}
	o.mu.RLock()
	b := o.state.batches.pinned(s.Number)
	ours, late := b != nil && b.ID == id, o.state.pos < f.id
	o.mu.RUnlock()
	switch {
	case late:
		return 0, o.endedAt(ctx, s, f.id)
	case !ours:
		return 0, errEnded
	}
	o.opts.Logger.Warn("a fence that no transaction needs is removed", "shard", s.Name, "batch", f.id)
	r, err := o.shardTxn(ctx, s, &pb.TxnRequest{
		Compare: []*pb.Compare{modIs(fenceKey, f.mod)},
		Success: []*pb.RequestOp{deleteOp(fenceKey)},
	})
	if err != nil || !r.Succeeded {
		return 0, err
	}
	return r.Header.Revision, nil
}

func versionIs(key string, version int64) *pb.Compare {
	return &pb.Compare{Key: []byte(key), Target: pb.Compare_VERSION, Result: pb.Compare_EQUAL, TargetUnion: &pb.Compare_Version{Version: version}}
}

func modIs(key string, rev int64) *pb.Compare {
	return &pb.Compare{Key: []byte(key), Target: pb.Compare_MOD, Result: pb.Compare_EQUAL, TargetUnion: &pb.Compare_ModRevision{ModRevision: rev}}
}

func deleteOp(key string) *pb.RequestOp {
	return &pb.RequestOp{Request: &pb.RequestOp_RequestDeleteRange{RequestDeleteRange: &pb.DeleteRangeRequest{Key: []byte(key)}}}
}
