package stages

import (
	"context"
	"errors"
	"io"

	"google.golang.org/grpc/codes"
	"google.golang.org/protobuf/proto"

	"github.com/sharder/sharder/pipeline"
	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	"go.etcd.io/etcd/api/v3/mvccpb"
)

// StreamOptions says how RangeStream talks to the shards. The zero value works.
type StreamOptions struct {
	// Decoder judges the request, as for the other RPCs.
	Decoder Decoder
	// Call makes a unary call to a shard: the counts, and the pages of a shard
	// without RangeStream. nil is Lane(CallShard). Only while such a call is in
	// flight is a place in the shard's lane taken, not as long as the client reads.
	Call pipeline.Stage[Call, Reply]
	// Context prepares the context of a stream to a shard, for example
	// ForwardMetadata. nil leaves it as it is.
	Context func(context.Context) context.Context
	// Translate gives key-values of a shard as clients must see them (lease ids, global
	// revisions). Those it is given are its own to change, and it gives the same slice
	// back if there is nothing to do. nil is that.
	Translate func(context.Context, *Shard, []*mvccpb.KeyValue) ([]*mvccpb.KeyValue, error)
	// Pin gives the moment at which the range is read and the header of the answer.
	// nil where each shard keeps its own revisions.
	Pin func(context.Context, *pb.RangeRequest) (*Cut, *pb.ResponseHeader, error)
	// Ahead is how many pages are read ahead of the client on each shard, in
	// addition to the one at hand. 0 is 1; negative is none.
	Ahead int
	// PageBytes is the size that pages of a shard without RangeStream aim at, in
	// bytes. 0 or less is 1 MiB.
	PageBytes int
}

// RangeStream serves KV.RangeStream: a Range in frames, so that neither a shard nor
// sharder nor the client needs to hold all of it.
//
// A range on one shard is that shard's own stream, frame by frame, with its
// metadata and status. Over several shards the count on each comes first, which
// also gives the revision the shard is then read at; the pages of all are merged in
// key order, cut at the limit, and sent as they come. header, more and count are in
// the last frame, as with etcd; the header is made as for MergeRange. At most
// Ahead+2 pages per shard are held, besides what gRPC's flow control lets in.
//
// An error after some frames ends the stream without a last frame. Errors are
// finished statuses (ErrorStatus).
func RangeStream(t *Table, opts StreamOptions) func(*pb.RangeRequest, pb.KV_RangeStreamServer) error {
	s := &rangeStreams{StreamOptions: opts, table: t}
	if s.Call == nil {
		s.Call = Lane(CallShard)
	}
	if s.Context == nil {
		s.Context = func(ctx context.Context) context.Context { return ctx }
	}
	if s.Translate == nil {
		s.Translate = func(_ context.Context, _ *Shard, kvs []*mvccpb.KeyValue) ([]*mvccpb.KeyValue, error) { return kvs, nil }
	}
	if s.Ahead == 0 {
		s.Ahead = 1
	}
	s.Ahead = max(s.Ahead, 0)
	if s.PageBytes <= 0 {
		s.PageBytes = 1 << 20
	}
	return func(req *pb.RangeRequest, stream pb.KV_RangeStreamServer) error {
		return ErrorStatus(s.serve(stream.Context(), req, stream))
	}
}

// rangeStreams is RangeStream with its defaults filled in.
type rangeStreams struct {
	StreamOptions
	table *Table
}

func (s *rangeStreams) serve(ctx context.Context, req *pb.RangeRequest, stream pb.KV_RangeStreamServer) error {
	op, err := s.Decoder.RangeStream(ctx, req)
	if err != nil {
		return err
	}
	if s.Pin != nil {
		return s.pinned(ctx, op, stream)
	}
	calls, err := RouteOp(s.table)(ctx, op)
	if err != nil {
		return err
	}
	if len(calls) == 1 {
		return pipeline.Run(ctx, s.relayed(calls[0], stream), s.Ahead, sendFrames(stream))
	}
	counts, err := s.count(ctx, calls)
	if err != nil {
		return err
	}
	return s.merged(ctx, calls, counts, nil, stream)
}

// pinTries is how often a stream begins anew because a compaction overtook it before it
// had counted.
const pinTries = 5

// pinned serves a stream that is read at one cut, on one shard or several.
func (s *rangeStreams) pinned(ctx context.Context, op *Op, stream pb.KV_RangeStreamServer) error {
	for try := 1; ; try++ {
		cut, header, err := s.Pin(ctx, op.Request.GetRequestRange())
		if err != nil {
			return err
		}
		calls, err := RouteOp(s.table)(ctx, &Op{Request: op.Request, Cut: cut})
		if err != nil {
			return err
		}
		counts, err := s.count(ctx, calls)
		if isCompacted(err) && op.Request.GetRequestRange().Revision <= 0 && try < pinTries {
			continue
		}
		if err != nil {
			return err
		}
		for i, c := range calls {
			counts[i].Response.GetResponseRange().Header = &pb.ResponseHeader{Revision: cut.At[c.Shard.Number]}
		}
		return s.merged(ctx, calls, counts, header, stream)
	}
}

// relayed is the source of one shard's frames as they are. It hands the shard's
// metadata on: the header before the first frame, the trailer after the last.
func (s *rangeStreams) relayed(call Call, stream pb.KV_RangeStreamServer) pipeline.Source[*pb.RangeStreamResponse] {
	return func(ctx context.Context, out chan<- *pb.RangeStreamResponse) error {
		rs, err := pb.NewKVClient(call.Shard.Conn).RangeStream(s.Context(ctx), call.Request.GetRequestRange())
		if err != nil {
			return &ShardError{Shard: call.Shard, Err: err}
		}
		if md, err := rs.Header(); err == nil { // if not, Recv says why
			if err := stream.SetHeader(withoutTransport(md)); err != nil {
				return err
			}
		}
		for {
			frame, err := rs.Recv()
			if err != nil {
				stream.SetTrailer(withoutTransport(rs.Trailer()))
				return streamEnd(call.Shard, err)
			}
			if frame, err = s.translated(ctx, call.Shard, frame); err != nil {
				return err
			}
			if err := pipeline.Emit(ctx, out, frame); err != nil {
				return err
			}
		}
	}
}

// translated is a frame as the client must see it; mostly the same one.
func (s *rangeStreams) translated(ctx context.Context, shard *Shard, frame *pb.RangeStreamResponse) (*pb.RangeStreamResponse, error) {
	r := frame.GetRangeResponse()
	kvs, err := s.Translate(ctx, shard, r.GetKvs())
	if err != nil || len(kvs) == 0 || &kvs[0] == &r.Kvs[0] {
		return frame, err
	}
	return &pb.RangeStreamResponse{RangeResponse: &pb.RangeResponse{Header: r.Header, Kvs: kvs, More: r.More, Count: r.Count}}, nil
}

// streamEnd makes the end of a shard's stream what a Source returns for it.
func streamEnd(s *Shard, err error) error {
	if errors.Is(err, io.EOF) {
		return nil
	}
	return &ShardError{Shard: s, Err: err}
}

func sendFrames(stream pb.KV_RangeStreamServer) pipeline.Sink[*pb.RangeStreamResponse] {
	return func(_ context.Context, in <-chan *pb.RangeStreamResponse) error {
		for frame := range in {
			if err := stream.Send(frame); err != nil {
				return err
			}
		}
		return nil
	}
}

// count asks every shard how many keys it holds, all at once.
func (s *rangeStreams) count(ctx context.Context, calls []Call) ([]Reply, error) {
	counting := make([]Call, len(calls))
	for i, c := range calls {
		req := proto.Clone(c.Request.GetRequestRange()).(*pb.RangeRequest)
		req.CountOnly, req.KeysOnly, req.Limit = true, false, 0
		counting[i] = Call{Op: c.Op, Shard: c.Shard, Request: &pb.RequestOp{Request: &pb.RequestOp_RequestRange{RequestRange: req}}}
	}
	return pipeline.Scatter(s.Call)(ctx, counting)
}

// merged streams the pages of all shards, each at the revision of its count. Without a
// header the answer gets one made of the shards'.
func (s *rangeStreams) merged(ctx context.Context, calls []Call, counts []Reply, header *pb.ResponseHeader, stream pb.KV_RangeStreamServer) error {
	req := calls[0].Op.Request.GetRequestRange()
	total, headers := int64(0), make([]*pb.ResponseHeader, len(counts))
	for i, r := range counts {
		part := r.Response.GetResponseRange()
		total += part.GetCount()
		headers[i] = part.GetHeader()
	}
	if header == nil {
		header = mergeHeaders(headers)
	}
	f := &frames{stream: stream, want: total, last: &pb.RangeResponse{Header: header, Count: total}}
	if req.CountOnly {
		f.want = 0
	} else if req.Limit > 0 && req.Limit < total {
		f.want, f.last.More = req.Limit, true
	}
	if f.want == 0 {
		return f.send(nil)
	}
	var srcs []pipeline.Source[[]*mvccpb.KeyValue]
	for i, r := range counts {
		if part := r.Response.GetResponseRange(); part.GetCount() > 0 {
			srcs = append(srcs, s.pages(calls[i], part.GetHeader().GetRevision()))
		}
	}
	if err := pipeline.Run(ctx, pipeline.MergeSources(compareKeys, s.Ahead, srcs...), s.Ahead, f.sink); err != nil {
		return err
	}
	if f.sent < f.want {
		return refuse(codes.Internal, "range stream: shards sent %d keys and had counted %d", f.sent, f.want)
	}
	return nil
}

// frames sends pages of key-values to a client. How many will come is known from
// the counts, so the last frame goes out with the last key, and never when the
// pages end early because a shard failed.
type frames struct {
	stream pb.KV_RangeStreamServer
	sent   int64
	want   int64
	last   *pb.RangeResponse // header, more and count of the last frame
}

func (f *frames) sink(_ context.Context, in <-chan []*mvccpb.KeyValue) error {
	for page := range in {
		if left := f.want - f.sent; int64(len(page)) > left {
			page = page[:left]
		}
		f.sent += int64(len(page))
		if err := f.send(page); err != nil || f.sent == f.want {
			return err
		}
	}
	return nil
}

func (f *frames) send(page []*mvccpb.KeyValue) error {
	frame := &pb.RangeResponse{Kvs: page}
	if f.sent == f.want {
		frame.Header, frame.More, frame.Count = f.last.Header, f.last.More, f.last.Count
	}
	return f.stream.Send(&pb.RangeStreamResponse{RangeResponse: frame})
}
