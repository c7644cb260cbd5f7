package backend

import (
	"context"
	"fmt"
	"strings"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/sharder/sharder/stages"
	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"
)

// What a shard must allow above what clients may send, since sharder wraps their
// requests into transactions of its own.
const (
	// ClientTxnOps is how many operations of a Txn clients may send: etcd's own default.
	ClientTxnOps = 128
	// ShardTxnOps is how many a shard should allow (--max-txn-ops).
	ShardTxnOps = 256
	// ShardRequestRoom is by how much a shard's largest request (--max-request-bytes)
	// should be above the clients'.
	ShardRequestRoom = 512 << 10
)

const (
	// probedOps is more than clients may send, and what sharder adds itself.
	probedOps = ClientTxnOps + 8
	// framing is what etcd adds around a value of a probe.
	framing = 1 << 10
)

// Limits says what a shard refuses that it should allow.
type Limits struct {
	TxnOps       bool // too few operations in one Txn
	RequestBytes bool // too small a request
	bytes        int  // what it should allow
}

// Enough reports whether nothing is too small.
func (l Limits) Enough() bool { return !l.TxnOps && !l.RequestBytes }

// Flags are the flags of etcd that are to be set.
func (l Limits) Flags() string {
	var flags []string
	if l.TxnOps {
		flags = append(flags, fmt.Sprintf("--max-txn-ops=%d", ShardTxnOps))
	}
	if l.RequestBytes {
		flags = append(flags, fmt.Sprintf("--max-request-bytes=%d", l.bytes))
	}
	return strings.Join(flags, " ")
}

// CheckLimits finds out whether a shard takes somewhat larger requests than clients may
// send, which is clientBytes. It sends requests that can't come true: a Txn of reads with
// many operations, and a large one whose compare fails, which goes through the shard's
// Raft log but makes no revision. A shard that is too narrow still serves: what doesn't
// fit is refused with etcd's own errors.
func CheckLimits(ctx context.Context, conn grpc.ClientConnInterface, clientBytes int) (Limits, error) {
	l := Limits{bytes: clientBytes + ShardRequestRoom}
	kv := pb.NewKVClient(conn)
	_, err := kv.Txn(ctx, manyOps())
	l.TxnOps = sameStatus(err, rpctypes.ErrGRPCTooManyOps)
	if err != nil && !l.TxnOps {
		return l, err
	}
	_, err = kv.Txn(ctx, large(l.bytes-framing))
	l.RequestBytes = tooLarge(err)
	if err != nil && !l.RequestBytes && !sameStatus(err, rpctypes.ErrGRPCNoSpace) { // that is said after the size was found right
		return l, err
	}
	return l, nil
}

// tooLarge reports whether a request was refused for its size: by etcd, or by etcd's gRPC
// if it was far too large.
func tooLarge(err error) bool {
	return sameStatus(err, rpctypes.ErrGRPCRequestTooLarge) ||
		status.Code(err) == codes.ResourceExhausted && !strings.HasPrefix(status.Convert(err).Message(), "etcdserver:")
}

// never is a compare that can't hold.
func never() []*pb.Compare {
	return []*pb.Compare{{
		Key: []byte(stages.StampKey), Target: pb.Compare_VERSION, Result: pb.Compare_LESS,
		TargetUnion: &pb.Compare_Version{Version: 0},
	}}
}

// manyOps is a Txn of more operations than clients may send. All of them read, so it
// does not go through the shard's log.
func manyOps() *pb.TxnRequest {
	op := &pb.RequestOp{Request: &pb.RequestOp_RequestRange{RequestRange: &pb.RangeRequest{Key: []byte(stages.StampKey), CountOnly: true}}}
	txn := &pb.TxnRequest{Compare: never()}
	for range probedOps {
		txn.Success = append(txn.Success, op)
	}
	return txn
}

// large is a Txn that writes a value of so many bytes, if it ever did.
func large(bytes int) *pb.TxnRequest {
	return &pb.TxnRequest{Compare: never(), Success: []*pb.RequestOp{{
		Request: &pb.RequestOp_RequestPut{RequestPut: &pb.PutRequest{Key: []byte(stages.StampKey + "/never"), Value: make([]byte, bytes)}},
	}}}
}
