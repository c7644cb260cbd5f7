package stages

import (
	"context"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/encoding"
	"google.golang.org/grpc/encoding/proto"
	"google.golang.org/grpc/mem"
	"google.golang.org/protobuf/encoding/protowire"

	"github.com/sharder/sharder/pipeline"
	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
)

// Frame is a message as it came over the wire, not decoded: where nobody in sharder has to
// read an answer, decoding and encoding it again would be its largest part of the work.
// FrameCodec reads into a Frame and writes from it.
//
// Its bytes are gRPC's, counted by reference. Whoever writes a Frame gives that reference
// away, so it is written at most once, and not looked at afterwards. One that is never
// written is left to the garbage collector.
type Frame struct{ data mem.BufferSlice }

// NewFrame makes a Frame of a message's bytes, which may be in several parts and must not be
// changed any more.
func NewFrame(parts ...[]byte) *Frame {
	f := &Frame{data: make(mem.BufferSlice, 0, len(parts))}
	for _, p := range parts {
		if len(p) > 0 {
			f.data = append(f.data, mem.SliceBuffer(p))
		}
	}
	return f
}

// Len is the number of the message's bytes.
func (f *Frame) Len() int { return f.data.Len() }

// Bytes are a copy of the message.
func (f *Frame) Bytes() []byte { return f.data.Materialize() }

// Varint is a number or a bool that is a field of the message; 0 if it has no such field, as
// one that says false has not.
func (f *Frame) Varint(number int) uint64 {
	var all []byte
	if len(f.data) == 1 {
		all = f.data[0].ReadOnlyData()
	} else {
		all = f.data.Materialize()
	}
	value, n := field(all, protowire.Number(number), protowire.VarintType)
	if n <= 0 {
		return 0
	}
	v, _ := protowire.ConsumeVarint(value)
	return v
}

// Revision is the revision in the header of an answer of etcd's KV service; 0 if there is
// none to be found. In each of its answers the header is field 1 and comes first.
func (f *Frame) Revision() int64 {
	if f == nil || len(f.data) == 0 {
		return 0
	}
	first := f.data[0].ReadOnlyData()
	if header, n := field(first, headerField, protowire.BytesType); n > 0 {
		return revisionOf(header)
	}
	if len(f.data) == 1 {
		return 0
	}
	header, _ := field(f.data.Materialize(), headerField, protowire.BytesType)
	return revisionOf(header)
}

// Fields of etcd's messages: of any answer, and of a ResponseHeader.
const (
	headerField   protowire.Number = 1
	revisionField protowire.Number = 3
)

func revisionOf(header []byte) int64 {
	value, n := field(header, revisionField, protowire.VarintType)
	if n <= 0 {
		return 0
	}
	rev, _ := protowire.ConsumeVarint(value)
	return int64(rev)
}

// field finds the first field of a message with this number and type, and gives its value
// and where it ends; 0 if b doesn't hold the whole of it. The value of bytes is without
// their length.
func field(b []byte, want protowire.Number, as protowire.Type) (value []byte, end int) {
	for at := 0; at < len(b); {
		num, typ, n := protowire.ConsumeTag(b[at:])
		if n < 0 {
			return nil, 0
		}
		at += n
		size := protowire.ConsumeFieldValue(num, typ, b[at:])
		if size < 0 {
			return nil, 0
		}
		value, at = b[at:at+size], at+size
		if num != want || typ != as {
			continue
		}
		if as == protowire.BytesType {
			value, _ = protowire.ConsumeBytes(value)
		}
		return value, at
	}
	return nil, 0
}

// FrameCodec is gRPC's codec for protobuf, but for a *Frame, whose bytes it moves as they are.
var FrameCodec encoding.CodecV2 = frameCodec{encoding.GetCodecV2(proto.Name)}

type frameCodec struct{ encoding.CodecV2 }

// Marshal encodes a message, and gives a Frame's bytes away.
func (c frameCodec) Marshal(v any) (mem.BufferSlice, error) {
	if f, ok := v.(*Frame); ok {
		data := f.data
		f.data = nil
		return data, nil
	}
	return c.CodecV2.Marshal(v)
}

// Unmarshal decodes a message, or keeps it in a Frame.
func (c frameCodec) Unmarshal(data mem.BufferSlice, v any) error {
	if f, ok := v.(*Frame); ok {
		data.Ref()
		f.data.Free()
		f.data = data
		return nil
	}
	return c.CodecV2.Unmarshal(data, v)
}

// asFrames has the answer to a call read by FrameCodec.
var asFrames = grpc.ForceCodecV2(FrameCodec)

// CallFrame is CallShard that leaves the answer as it comes: Reply.Frame is set, and not
// Response. For chains in which nobody reads an answer but for its revision.
func CallFrame(ctx context.Context, call Call) (Reply, error) {
	method, request := methodOf(call.Request)
	if request == nil {
		return Reply{}, &ShardError{Shard: call.Shard, Err: refuse(codes.Internal, "call without a request")}
	}
	r := Reply{Op: call.Op, Shard: call.Shard, Frame: &Frame{}}
	if err := call.Shard.Conn.Invoke(ctx, method, request, r.Frame, grpc.Header(&r.Header), grpc.Trailer(&r.Trailer), asFrames); err != nil {
		return Reply{}, &ShardError{Shard: call.Shard, Err: err, Header: r.Header, Trailer: r.Trailer}
	}
	return r, nil
}

// ToShard makes the call of an Op where there is one shard: what RouteOp and Scatter would do.
func ToShard(shard *Shard) pipeline.Stage[*Op, Call] {
	return func(_ context.Context, op *Op) (Call, error) {
		return Call{Op: op, Shard: shard, Request: op.Request}, nil
	}
}

// EncodeFrame is EncodeRange and its like for an answer that was left as it came.
func EncodeFrame(ctx context.Context, r Reply) (*Frame, error) {
	return r.Frame, sendMetadata(ctx, r.Header, r.Trailer)
}

// methodOf is the RPC that a request is for, and its message; nil if there is none.
func methodOf(r *pb.RequestOp) (method string, request any) {
	switch u := r.GetRequest().(type) {
	case *pb.RequestOp_RequestRange:
		return pb.KV_Range_FullMethodName, u.RequestRange
	case *pb.RequestOp_RequestPut:
		return pb.KV_Put_FullMethodName, u.RequestPut
	case *pb.RequestOp_RequestDeleteRange:
		return pb.KV_DeleteRange_FullMethodName, u.RequestDeleteRange
	case *pb.RequestOp_RequestTxn:
		return pb.KV_Txn_FullMethodName, u.RequestTxn
	}
	return "", nil
}
