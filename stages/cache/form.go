package cache

import (
	"google.golang.org/protobuf/proto"

	"github.com/sharder/sharder/stages"
	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
)

// form is how a chain has its answers: decoded, or in the bytes in which they came.
type form[T any] struct {
	size func(T) int                     // of its bytes
	wire func(T) ([]byte, error)         // the bytes, in memory of their own
	of   func(*answer, int64) (T, error) // an answer, true up to a revision
}

var decoded = form[*pb.RangeResponse]{
	size: func(r *pb.RangeResponse) int { return proto.Size(r) },
	wire: func(r *pb.RangeResponse) ([]byte, error) { return proto.Marshal(r) },
	of: func(a *answer, rev int64) (*pb.RangeResponse, error) {
		r := &pb.RangeResponse{}
		if err := proto.Unmarshal(a.headAt(rev), r); err != nil {
			return nil, err
		}
		return r, proto.UnmarshalOptions{Merge: true}.Unmarshal(a.body, r)
	},
}

var undecoded = form[*stages.Frame]{
	size: (*stages.Frame).Len,
	wire: func(f *stages.Frame) ([]byte, error) { return f.Bytes(), nil },
	of: func(a *answer, rev int64) (*stages.Frame, error) {
		return stages.NewFrame(a.headAt(rev), a.body), nil
	},
}
