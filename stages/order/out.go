package order

import (
	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	"go.etcd.io/etcd/api/v3/mvccpb"
)

// hasWritten tells from an answer whether the request changed anything.
func hasWritten(r *pb.ResponseOp) bool {
	switch u := r.GetResponse().(type) {
	case *pb.ResponseOp_ResponsePut:
		return true
	case *pb.ResponseOp_ResponseDeleteRange:
		return u.ResponseDeleteRange.GetDeleted() > 0
	case *pb.ResponseOp_ResponseTxn:
		for _, op := range u.ResponseTxn.GetResponses() {
			if hasWritten(op) {
				return true
			}
		}
	}
	return false
}

// globalize translates an answer, in place: given at the shard's revision rev, which is
// global to clients. All that is in it must be covered. False if it holds a key-value
// that the map has no number for any more: read before a compaction and swept since.
func (o *Order) globalize(shard int, r *pb.ResponseOp, rev, global int64, wrote bool) (known bool) {
	o.mu.RLock()
	defer o.mu.RUnlock()
	out := outbound{state: o.state, shard: shard, rev: rev, global: global, wrote: wrote}
	known = out.op(r)
	setHeader(r, o.Header(global))
	return known
}

// outbound translates one answer; the state's lock is held.
type outbound struct {
	state       *state
	shard       int
	rev, global int64
	wrote       bool
}

// op translates an answer; false if a number is not known.
func (out outbound) op(r *pb.ResponseOp) (known bool) {
	switch u := r.GetResponse().(type) {
	case *pb.ResponseOp_ResponseRange:
		out.header(u.ResponseRange.GetHeader())
		return out.kvs(u.ResponseRange.GetKvs())
	case *pb.ResponseOp_ResponsePut:
		out.header(u.ResponsePut.GetHeader())
		return out.state.globalKV(out.shard, u.ResponsePut.GetPrevKv())
	case *pb.ResponseOp_ResponseDeleteRange:
		out.header(u.ResponseDeleteRange.GetHeader())
		return out.kvs(u.ResponseDeleteRange.GetPrevKvs())
	case *pb.ResponseOp_ResponseTxn:
		out.header(u.ResponseTxn.GetHeader())
		known = true
		for _, op := range u.ResponseTxn.GetResponses() {
			known = out.op(op) && known
		}
		return known
	}
	return true
}

func (out outbound) kvs(kvs []*mvccpb.KeyValue) (known bool) {
	known = true
	for _, kv := range kvs {
		known = out.state.globalKV(out.shard, kv) && known
	}
	return known
}

// header translates the header of an answer inside a Txn. It has the revision at which
// that operation ran: the Txn's own, or, before the Txn's first write, the one before.
func (out outbound) header(h *pb.ResponseHeader) {
	switch {
	case h == nil || h.Revision == 0:
	case out.wrote && h.Revision < out.rev:
		h.Revision = out.global - 1
	default:
		h.Revision = out.global
	}
}
