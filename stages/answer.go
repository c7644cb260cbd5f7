package stages

import (
	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	"go.etcd.io/etcd/api/v3/mvccpb"
)

// AnswerRange is what one etcd answers to a Range that finds kvs, all of them and in key
// order; the header is the caller's. The slice is used up, what it points to stays as it
// is. If the Range is for keys only, kvs may come without values (unless they are what
// is sorted by) and without leases.
func AnswerRange(r *pb.RangeRequest, kvs []*mvccpb.KeyValue) *pb.RangeResponse {
	out := &pb.RangeResponse{Count: int64(len(kvs))}
	if r.CountOnly {
		return out
	}
	kvs = filtered(r, kvs)
	if strategyFor(r, false) == headByKey {
		kvs, _ = limitTo(kvs, oneMore(r.Limit), false)
	}
	if r.SortTarget != pb.RangeRequest_KEY || r.SortOrder == pb.RangeRequest_DESCEND {
		sortLikeEtcd(kvs, comparisonFor(r))
	}
	out.Kvs, out.More = limitTo(kvs, r.Limit, false)
	if r.KeysOnly {
		withoutValues(r, out.Kvs)
	}
	return out
}

// filtered drops what the revision filters exclude.
func filtered(r *pb.RangeRequest, kvs []*mvccpb.KeyValue) []*mvccpb.KeyValue {
	if !hasFilters(r) {
		return kvs
	}
	within := func(rev, least, most int64) bool {
		return (least == 0 || rev >= least) && (most == 0 || rev <= most)
	}
	kept := kvs[:0]
	for _, kv := range kvs {
		if within(kv.ModRevision, r.MinModRevision, r.MaxModRevision) && within(kv.CreateRevision, r.MinCreateRevision, r.MaxCreateRevision) {
			kept = append(kept, kv)
		}
	}
	return kept
}

// withoutValues leaves of each what etcd's index knows; that is without the lease. Only if
// values are what is sorted by, etcd reads the whole, and drops the value.
func withoutValues(r *pb.RangeRequest, kvs []*mvccpb.KeyValue) {
	for i, kv := range kvs {
		kvs[i] = &mvccpb.KeyValue{Key: kv.Key, CreateRevision: kv.CreateRevision, ModRevision: kv.ModRevision, Version: kv.Version}
		if r.SortTarget == pb.RangeRequest_VALUE {
			kvs[i].Lease = kv.Lease
		}
	}
}
