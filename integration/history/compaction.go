package history

import (
	"google.golang.org/grpc/status"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"
)

// historical is the revision that a read names, 0 if none.
func historical(o *Op) int64 {
	switch r := o.Request.(type) {
	case *pb.RangeRequest:
		return r.Revision
	case *pb.TxnRequest:
		least := int64(0)
		for _, op := range append(append([]*pb.RequestOp(nil), r.Success...), r.Failure...) {
			if rev := op.GetRequestRange().GetRevision(); rev > 0 && (least == 0 || rev < least) {
				least = rev
			}
		}
		return least
	}
	return 0
}

// compactedError judges an error that says "compacted": somebody must have asked for a
// compaction above before the answer came. It tells whether the error is one.
func (c *checker) compactedError(o *Op) bool {
	if status.Convert(o.Err).Message() != status.Convert(rpctypes.ErrGRPCCompacted).Message() {
		return false
	}
	if r, ok := o.Request.(*pb.CompactionRequest); ok {
		for _, k := range c.compact {
			if k.rev >= r.Revision && k.call < o.Return {
				return true
			}
		}
	}
	for _, k := range c.compact {
		if rev := historical(o); rev > 0 && k.rev > rev && k.call < o.Return {
			return true
		}
	}
	c.fail(State, "nobody had compacted that: %s", o.Describe())
	return true
}

// compacted judges a reply to a read of the past: no compaction above may have been
// acknowledged before the read was asked.
func (c *checker) compacted(o *Op) {
	rev := historical(o)
	if rev == 0 || o.outcome() != answered {
		return
	}
	for _, k := range c.compact {
		if k.rev > rev && k.end < o.Call && !o.stale() {
			c.fail(RealTime, "revision %d was compacted, up to %d, when this was asked: %s", rev, k.rev, o.Describe())
			return
		}
	}
}
