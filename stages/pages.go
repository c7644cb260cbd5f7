package stages

import (
	"bytes"
	"context"
	"errors"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"

	"github.com/sharder/sharder/pipeline"
	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	"go.etcd.io/etcd/api/v3/mvccpb"
	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"
)

// firstPage is how many keys the first unary page asks for, before the size of the
// values is known.
const firstPage = 10

// pages is the source of what call's shard holds of the range at revision, in
// pages in key order. A shard that does not know RangeStream (before etcd 3.7) is
// read by unary pages. A serializable read that meets a member which has not come
// to the revision yet is done over as a linearizable one: the client asked for
// any state, but must get one of them.
func (s *rangeStreams) pages(call Call, revision int64) pipeline.Source[[]*mvccpb.KeyValue] {
	return func(ctx context.Context, out chan<- []*mvccpb.KeyValue) error {
		p := &pager{rangeStreams: s, call: call, out: out}
		p.req = proto.Clone(call.Request.GetRequestRange()).(*pb.RangeRequest)
		p.req.Revision = revision
		p.req.Serializable = p.req.Serializable || call.Op.Cut != nil // what a cut names is durable
		read := p.streamed
		for {
			err := read(ctx)
			switch {
			case err == nil || p.begun:
				return err
			case errors.Is(err, errNoStream):
				read = p.paged
			case p.req.Serializable && isFutureRevision(err):
				p.req.Serializable = false
			default:
				return err
			}
		}
	}
}

// errNoStream says that a shard does not know RangeStream.
var errNoStream = errors.New("sharder: shard has no RangeStream")

func isFutureRevision(err error) bool { return isEtcd(err, rpctypes.ErrGRPCFutureRev) }

func isCompacted(err error) bool { return isEtcd(err, rpctypes.ErrGRPCCompacted) }

func isEtcd(err, want error) bool {
	if err == nil {
		return false
	}
	have, w := status.Convert(ErrorStatus(err)), status.Convert(want)
	return have.Code() == w.Code() && have.Message() == w.Message()
}

// pager reads one shard for one merge.
type pager struct {
	*rangeStreams
	call  Call
	req   *pb.RangeRequest
	out   chan<- []*mvccpb.KeyValue
	begun bool // a page was sent, so starting over would repeat it
}

// streamed reads by the shard's RangeStream.
func (p *pager) streamed(ctx context.Context) error {
	rs, err := pb.NewKVClient(p.call.Shard.Conn).RangeStream(p.Context(ctx), p.req)
	if err != nil {
		return &ShardError{Shard: p.call.Shard, Err: err}
	}
	for {
		frame, err := rs.Recv()
		if status.Code(err) == codes.Unimplemented {
			return errNoStream
		}
		if err != nil {
			return streamEnd(p.call.Shard, err)
		}
		kvs, err := p.Translate(ctx, p.call.Shard, frame.GetRangeResponse().GetKvs())
		if err != nil {
			return err
		}
		if err := p.emit(ctx, kvs); err != nil {
			return err
		}
	}
}

// paged reads by unary Ranges, each from behind the last key of the one before,
// all at one revision.
func (p *pager) paged(ctx context.Context) error {
	req, left, size := proto.Clone(p.req).(*pb.RangeRequest), p.req.Limit, int64(firstPage)
	for {
		req.Limit = size
		if left > 0 {
			req.Limit = min(size, left)
		}
		ask := &pb.RequestOp{Request: &pb.RequestOp_RequestRange{RequestRange: req}}
		r, err := p.Call(ctx, Call{Op: p.call.Op, Shard: p.call.Shard, Request: ask})
		if err != nil {
			return err
		}
		resp := r.Response.GetResponseRange()
		n := int64(len(resp.GetKvs()))
		if err := p.emit(ctx, resp.GetKvs()); err != nil {
			return err
		}
		if !resp.GetMore() || n == 0 || n == left {
			return nil
		}
		if left > 0 {
			left -= n
		}
		size = nextSize(size, proto.Size(resp), p.PageBytes)
		req = proto.Clone(req).(*pb.RangeRequest)
		req.Key = append(bytes.Clone(resp.Kvs[n-1].Key), 0)
	}
}

// nextSize steers the number of keys per page towards pages of about aim bytes.
func nextSize(keys int64, got, aim int) int64 {
	switch {
	case got < aim/2:
		return keys * 2
	case got > aim*2:
		return max(keys/2, 1)
	}
	return keys
}

// emit sends a page.
func (p *pager) emit(ctx context.Context, kvs []*mvccpb.KeyValue) error {
	if len(kvs) == 0 {
		return nil
	}
	p.begun = true
	return pipeline.Emit(ctx, p.out, kvs)
}
