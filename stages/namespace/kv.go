package namespace

import (
	"context"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
)

// KV is a KV service whose keys are those of the namespace. Its errors are those of the
// service below, whose edge has finished them.
func (n *Namespace) KV(below pb.KVServer) pb.KVServer { return kvService{n: n, below: below} }

// kvService embeds the Unsafe interface, so that an RPC that etcd adds is a compile error
// here and not a way out of the namespace. So do the others.
type kvService struct {
	pb.UnsafeKVServer
	n     *Namespace
	below pb.KVServer
}

// serve asks below, and translates.
func serve[I, O any](ctx context.Context, in I, ask func(context.Context, I) (O, error), translate func(O) (O, error)) (O, error) {
	out, err := ask(ctx, in)
	if err != nil {
		return out, err
	}
	return translate(out)
}

// Range implements etcd's KV service.
func (s kvService) Range(ctx context.Context, r *pb.RangeRequest) (*pb.RangeResponse, error) {
	return serve(ctx, s.n.rangeRequest(r), s.below.Range, s.n.rangeResponse)
}

// Put implements etcd's KV service.
func (s kvService) Put(ctx context.Context, r *pb.PutRequest) (*pb.PutResponse, error) {
	return serve(ctx, s.n.putRequest(r), s.below.Put, s.n.putResponse)
}

// DeleteRange implements etcd's KV service.
func (s kvService) DeleteRange(ctx context.Context, r *pb.DeleteRangeRequest) (*pb.DeleteRangeResponse, error) {
	return serve(ctx, s.n.deleteRequest(r), s.below.DeleteRange, s.n.deleteResponse)
}

// Txn implements etcd's KV service.
func (s kvService) Txn(ctx context.Context, r *pb.TxnRequest) (*pb.TxnResponse, error) {
	return serve(ctx, s.n.txnRequest(r), s.below.Txn, s.n.txnResponse)
}

// Compact is refused: there is one history for all.
func (s kvService) Compact(context.Context, *pb.CompactionRequest) (*pb.CompactionResponse, error) {
	return nil, Refusal(pb.KV_Compact_FullMethodName)
}

// RangeStream implements etcd's KV service.
func (s kvService) RangeStream(r *pb.RangeRequest, stream pb.KV_RangeStreamServer) error {
	return s.below.RangeStream(s.n.rangeRequest(r), rangeStream{stream, s.n})
}

// rangeStream is a client's stream as below writes to it.
type rangeStream struct {
	pb.KV_RangeStreamServer
	n *Namespace
}

// Send translates a frame.
func (s rangeStream) Send(frame *pb.RangeStreamResponse) error {
	r, err := s.n.rangeResponse(frame.GetRangeResponse())
	if err != nil {
		return err
	}
	return s.KV_RangeStreamServer.Send(&pb.RangeStreamResponse{RangeResponse: r})
}
