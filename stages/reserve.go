package stages

import (
	"bytes"

	"google.golang.org/grpc/codes"
	"google.golang.org/protobuf/proto"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
)

// firstClientKey is where the keys of clients begin: behind all that start with NUL.
var firstClientKey = []byte{1}

// reserve finishes decoding: it makes the Op, after the reserved keys were
// refused or clipped away. A request that has nothing to clip is not copied.
func (d Decoder) reserve(op *pb.RequestOp) (*Op, error) {
	if !d.Reserve {
		return &Op{Request: op}, nil
	}
	v := reserved{}
	v.op(op)
	if v.err != nil {
		return nil, v.err
	}
	if v.clips {
		op = proto.Clone(op).(*pb.RequestOp)
		v = reserved{clip: true}
		v.op(op)
	}
	return &Op{Request: op}, nil
}

// reserved walks over everything in a request that names keys. With clip unset
// it only looks: err is the first refusal, clips says that a range begins among
// the reserved keys. With clip set it moves those beginnings, in place.
type reserved struct {
	clip  bool
	clips bool
	err   error
}

func (v *reserved) op(op *pb.RequestOp) {
	switch u := op.GetRequest().(type) {
	case *pb.RequestOp_RequestRange:
		v.span(&u.RequestRange.Key, u.RequestRange.RangeEnd)
	case *pb.RequestOp_RequestPut:
		v.span(&u.RequestPut.Key, nil)
	case *pb.RequestOp_RequestDeleteRange:
		v.span(&u.RequestDeleteRange.Key, u.RequestDeleteRange.RangeEnd)
	case *pb.RequestOp_RequestTxn:
		v.txn(u.RequestTxn)
	}
}

func (v *reserved) txn(t *pb.TxnRequest) {
	for _, c := range t.GetCompare() {
		v.span(&c.Key, c.RangeEnd)
	}
	for _, op := range t.GetSuccess() {
		v.op(op)
	}
	for _, op := range t.GetFailure() {
		v.op(op)
	}
}

// span looks at one key or range and clips its beginning.
func (v *reserved) span(key *[]byte, end []byte) {
	if v.err != nil || (*key)[0] != 0 {
		return
	}
	switch {
	case len(end) == 0:
		v.err = refuse(codes.InvalidArgument, "key %q is reserved: keys that begin with a NUL byte are sharder's own", *key)
	case !before(firstClientKey, end):
		v.err = refuse(codes.InvalidArgument, "range [%q, %q) holds reserved keys only: keys that begin with a NUL byte are sharder's own", *key, end)
	default:
		v.clips = true
		if v.clip {
			*key = bytes.Clone(firstClientKey)
		}
	}
}
