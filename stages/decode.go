package stages

import (
	"context"
	"math"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"
)

// Decoder makes an Op of a client's request, or refuses it: as etcd refuses it,
// with the same errors in the same order, as far as the request alone decides.
// What depends on a shard (limits it was configured with, leases, revisions) is
// left to the shard. Its methods are stages. A request is never changed: where
// the Op needs another one, it gets a copy. No request makes a Decoder panic.
type Decoder struct {
	// Reserve keeps the keys that begin with a NUL byte for sharder itself:
	// naming one is InvalidArgument, so is a range with nothing but such keys,
	// and a range that begins among them begins at "\x01" instead.
	Reserve bool
	// MaxTxnOps is how many operations a Txn may have, counted as etcd does: the longest
	// of its three lists, and what is nested gets what is left. 0 leaves that to the
	// shard.
	MaxTxnOps int
	// MaxRequestBytes is how large a write may be, as etcd measures it: in the form in
	// which its log would get it. 0 leaves that to the shard.
	MaxRequestBytes int
}

// Range decodes a Range.
func (d Decoder) Range(_ context.Context, r *pb.RangeRequest) (*Op, error) {
	if err := checkRange(r); err != nil {
		return nil, err
	}
	return d.reserve(&pb.RequestOp{Request: &pb.RequestOp_RequestRange{RequestRange: r}})
}

// RangeStream decodes a RangeStream, which etcd offers in key order and without
// revision filters only.
func (d Decoder) RangeStream(ctx context.Context, r *pb.RangeRequest) (*Op, error) {
	if err := checkRange(r); err != nil {
		return nil, err
	}
	if !isKeyOrder(r) {
		return nil, status.Error(codes.Unimplemented, "RangeStream does not support custom sort orders")
	}
	if hasFilters(r) {
		return nil, status.Error(codes.Unimplemented, "RangeStream does not support revision filters")
	}
	return d.Range(ctx, r)
}

// Put decodes a Put.
func (d Decoder) Put(_ context.Context, r *pb.PutRequest) (*Op, error) {
	if err := checkPut(r); err != nil {
		return nil, err
	}
	if err := d.checkSize(&pb.InternalRaftRequest{Put: r}); err != nil {
		return nil, err
	}
	return d.reserve(&pb.RequestOp{Request: &pb.RequestOp_RequestPut{RequestPut: r}})
}

// DeleteRange decodes a DeleteRange.
func (d Decoder) DeleteRange(_ context.Context, r *pb.DeleteRangeRequest) (*Op, error) {
	if err := checkDelete(r); err != nil {
		return nil, err
	}
	if err := d.checkSize(&pb.InternalRaftRequest{DeleteRange: r}); err != nil {
		return nil, err
	}
	return d.reserve(&pb.RequestOp{Request: &pb.RequestOp_RequestDeleteRange{RequestDeleteRange: r}})
}

// Txn decodes a Txn with everything nested in it. Whether it writes a key twice is for
// the shard to judge that it goes to.
func (d Decoder) Txn(_ context.Context, r *pb.TxnRequest) (*Op, error) {
	most := d.MaxTxnOps
	if most <= 0 {
		most = math.MaxInt
	}
	if err := checkTxn(r, most); err != nil {
		return nil, err
	}
	if mayWrite(r) {
		if err := d.checkSize(&pb.InternalRaftRequest{Txn: r}); err != nil {
			return nil, err
		}
	}
	return d.reserve(&pb.RequestOp{Request: &pb.RequestOp_RequestTxn{RequestTxn: r}})
}

// checkSize refuses a write that is too large for etcd's log. The id that etcd gives it
// counts as well.
func (d Decoder) checkSize(r *pb.InternalRaftRequest) error {
	if d.MaxRequestBytes <= 0 {
		return nil
	}
	if r.Header = (&pb.RequestHeader{ID: math.MaxUint64}); proto.Size(r) > d.MaxRequestBytes {
		return rpctypes.ErrGRPCRequestTooLarge
	}
	return nil
}

// mayWrite tells whether any branch of a Txn writes: else etcd doesn't log it.
func mayWrite(r *pb.TxnRequest) bool {
	for _, ops := range [][]*pb.RequestOp{r.GetSuccess(), r.GetFailure()} {
		for _, op := range ops {
			switch u := op.GetRequest().(type) {
			case *pb.RequestOp_RequestPut, *pb.RequestOp_RequestDeleteRange:
				return true
			case *pb.RequestOp_RequestTxn:
				if mayWrite(u.RequestTxn) {
					return true
				}
			}
		}
	}
	return false
}

func checkRange(r *pb.RangeRequest) error {
	if len(r.GetKey()) == 0 {
		return rpctypes.ErrGRPCEmptyKey
	}
	_, order := pb.RangeRequest_SortOrder_name[int32(r.SortOrder)]
	_, target := pb.RangeRequest_SortTarget_name[int32(r.SortTarget)]
	if !order || !target {
		return rpctypes.ErrGRPCInvalidSortOption
	}
	return nil
}

func checkPut(r *pb.PutRequest) error {
	switch {
	case len(r.GetKey()) == 0:
		return rpctypes.ErrGRPCEmptyKey
	case r.IgnoreValue && len(r.Value) != 0:
		return rpctypes.ErrGRPCValueProvided
	case r.IgnoreLease && r.Lease != 0:
		return rpctypes.ErrGRPCLeaseProvided
	}
	return nil
}

func checkDelete(r *pb.DeleteRangeRequest) error {
	if len(r.GetKey()) == 0 {
		return rpctypes.ErrGRPCEmptyKey
	}
	return nil
}

func checkTxn(r *pb.TxnRequest, most int) error {
	n := max(len(r.GetCompare()), len(r.GetSuccess()), len(r.GetFailure()))
	if n > most {
		return rpctypes.ErrGRPCTooManyOps
	}
	for _, c := range r.GetCompare() {
		if len(c.GetKey()) == 0 {
			return rpctypes.ErrGRPCEmptyKey
		}
	}
	for _, ops := range [][]*pb.RequestOp{r.GetSuccess(), r.GetFailure()} {
		for _, op := range ops {
			if err := checkOp(op, most-n); err != nil {
				return err
			}
		}
	}
	return nil
}

// checkOp judges one operation of a Txn. An operation without content is "key
// not found" to etcd, so it is here.
func checkOp(op *pb.RequestOp, most int) error {
	switch u := op.GetRequest().(type) {
	case *pb.RequestOp_RequestRange:
		return checkRange(u.RequestRange)
	case *pb.RequestOp_RequestPut:
		return checkPut(u.RequestPut)
	case *pb.RequestOp_RequestDeleteRange:
		return checkDelete(u.RequestDeleteRange)
	case *pb.RequestOp_RequestTxn:
		return checkTxn(u.RequestTxn, most)
	}
	return rpctypes.ErrGRPCKeyNotFound
}
