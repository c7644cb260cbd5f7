package stages

import (
	"context"
	"errors"

	"google.golang.org/grpc/codes"

	"github.com/sharder/sharder/pipeline"
	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	"go.etcd.io/etcd/api/v3/mvccpb"
)

// errTies says that the first keys of each shard don't settle the order of the
// whole. RetryWhole answers it; no client ever sees it.
var errTies = errors.New("sharder: keys tie in the sort, the whole range is needed")

// RetryWhole runs a Range once more, with Op.Whole set, if its merge found keys
// that tie in the sort asked for: only the whole range tells in which order etcd
// would put them, and which of them the limit cuts off. It is a
// pipeline.Middleware[*Op, *Reply] around everything from route to gather. Reads
// only come back here, so nothing is done twice.
func RetryWhole(next pipeline.Stage[*Op, *Reply]) pipeline.Stage[*Op, *Reply] {
	return func(ctx context.Context, op *Op) (*Reply, error) {
		r, err := next(ctx, op)
		if op.Whole || !errors.Is(err, errTies) {
			return r, err
		}
		return next(ctx, &Op{Request: op.Request, Whole: true, Cut: op.Cut})
	}
}

// MergeRange makes one answer to a Range of the shards' answers: what one etcd
// with all these keys would say to kvs, order, count and more. A single reply is
// passed on as it is. Replies stand in the order of the calls, that is by first
// key; they are used up.
//
// The key-values are as their shards have them: revisions, and so filters and
// sorts by revision, are each shard's own. The header's is explained at mergeHeaders.
func MergeRange(_ context.Context, replies []Reply) (*Reply, error) {
	if len(replies) == 1 {
		return &replies[0], nil
	}
	if len(replies) == 0 {
		return nil, refuse(codes.Internal, "gather: no reply")
	}
	op := replies[0].Op
	req := op.Request.GetRequestRange()
	out := &pb.RangeResponse{}
	lists := make([][]*mvccpb.KeyValue, len(replies))
	headers := make([]*pb.ResponseHeader, len(replies))
	cut := false // whether some shard has more keys than it sent
	for i, r := range replies {
		part := r.Response.GetResponseRange()
		lists[i], headers[i] = part.GetKvs(), part.GetHeader()
		out.Count += part.GetCount()
		cut = cut || part.GetMore()
	}
	kvs, err := strategyFor(req, op.Whole).merge(req, lists, cut)
	if err != nil {
		return nil, err
	}
	out.Header = mergeHeaders(headers)
	out.Kvs, out.More = limitTo(kvs, req.Limit, cut)
	if req.KeysOnly {
		for _, kv := range out.Kvs {
			kv.Value = nil
		}
	}
	return &Reply{Op: op, Response: rangeReply(out)}, nil
}

// merge puts the shards' lists into the order of the request. The result may be
// longer than the limit. cut tells that there was more than the lists hold.
func (s strategy) merge(req *pb.RangeRequest, lists [][]*mvccpb.KeyValue, cut bool) ([]*mvccpb.KeyValue, error) {
	by := comparisonFor(req)
	switch s {
	case byKey:
		return pipeline.MergeSorted(by, lists...), nil
	case byTarget:
		return mergeByTarget(req, lists, by, cut)
	}
	kvs := pipeline.MergeSorted(compareKeys, lists...)
	if most := oneMore(req.Limit); s == headByKey && int64(len(kvs)) > most {
		kvs = kvs[:most]
	}
	sortLikeEtcd(kvs, by)
	return kvs, nil
}

// mergeByTarget merges lists that are sorted by the target. Their first limit+1
// are the right ones if all of these differ in the target: a key left out then
// compares at or behind the last of them, and that one is cut off anyway. If
// the shards sent all they have, the sort can be done here, ties or not.
func mergeByTarget(req *pb.RangeRequest, lists [][]*mvccpb.KeyValue, by comparison, cut bool) ([]*mvccpb.KeyValue, error) {
	kvs := pipeline.MergeSorted(by, lists...)
	if !ties(kvs, by, req.Limit) {
		return kvs, nil
	}
	if cut {
		return nil, errTies
	}
	sortLikeEtcd(kvs, compareKeys)
	sortLikeEtcd(kvs, by)
	return kvs, nil
}

// ties reports whether two neighbours among the first limit+1 of kvs are equal.
func ties(kvs []*mvccpb.KeyValue, by comparison, limit int64) bool {
	for i := 1; i < len(kvs) && int64(i) <= limit; i++ {
		if by(kvs[i-1], kvs[i]) == 0 {
			return true
		}
	}
	return false
}

// limitTo cuts kvs at the limit, if there is one, and says whether that left any out.
func limitTo(kvs []*mvccpb.KeyValue, limit int64, cut bool) ([]*mvccpb.KeyValue, bool) {
	if limit > 0 && int64(len(kvs)) > limit {
		return kvs[:limit], true
	}
	return kvs, cut
}

// mergeHeaders makes the header of an answer that several shards have part in,
// given in the order of the calls. Cluster, member and term are those of the first.
// Revision is the largest of theirs: it names no snapshot of all shards, there is
// none, but whoever reads or watches on from it gets a refusal (future revision,
// or the one for ranges over several shards), never silently too little.
func mergeHeaders(headers []*pb.ResponseHeader) *pb.ResponseHeader {
	first := headers[0]
	out := &pb.ResponseHeader{ClusterId: first.GetClusterId(), MemberId: first.GetMemberId(), RaftTerm: first.GetRaftTerm()}
	for _, h := range headers {
		out.Revision = max(out.Revision, h.GetRevision())
	}
	return out
}
