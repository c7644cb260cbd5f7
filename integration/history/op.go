package history

import (
	"context"
	"errors"
	"io"
	"sync"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
)

// Op is one request of one client. Call and Return are times since the log began; an Op
// whose outcome is unknown has no return that counts.
type Op struct {
	Client       int
	Through      string // the server that was asked
	Call, Return time.Duration
	Request      proto.Message // of the KV service
	Reply        proto.Message // nil if Err is set
	Err          error
}

// outcome is what is known about an Op.
type outcome int

const (
	answered outcome = iota // there is a reply
	refused                 // an error that says something about the state
	unknown                 // it may have happened, or may happen later
	strange                 // an error that no failure explains
)

func (o *Op) outcome() outcome {
	switch status.Code(o.Err) {
	case codes.OK:
		return answered
	case codes.InvalidArgument, codes.OutOfRange, codes.NotFound:
		return refused
	case codes.Unavailable, codes.DeadlineExceeded, codes.Canceled, codes.ResourceExhausted:
		return unknown
	}
	return strange
}

// revision is the one of the reply's header, 0 without a reply.
func (o *Op) revision() int64 {
	if r, ok := o.Reply.(interface{ GetHeader() *pb.ResponseHeader }); ok && o.Err == nil {
		return r.GetHeader().GetRevision()
	}
	return 0
}

// writes tells whether the request may change anything.
func (o *Op) writes() bool {
	switch r := o.Request.(type) {
	case *pb.PutRequest, *pb.DeleteRangeRequest:
		return true
	case *pb.TxnRequest:
		return txnWrites(r)
	}
	return false
}

func txnWrites(r *pb.TxnRequest) bool {
	for _, ops := range [][]*pb.RequestOp{r.Success, r.Failure} {
		for _, op := range ops {
			if op.GetRequestPut() != nil || op.GetRequestDeleteRange() != nil || op.GetRequestTxn() != nil && txnWrites(op.GetRequestTxn()) {
				return true
			}
		}
	}
	return false
}

// stale tells whether the reply may be older than the request: a serializable read.
func (o *Op) stale() bool {
	r, ok := o.Request.(*pb.RangeRequest)
	return ok && r.Serializable
}

// Log is what clients did. Any number of them use it at once; Ops is read when they
// have ended.
type Log struct {
	begin time.Time
	mu    sync.Mutex
	ops   []*Op
}

// NewLog is a log that begins now.
func NewLog() *Log { return &Log{begin: time.Now()} }

// Now is the time as it would be in an Op that is called now.
func (l *Log) Now() time.Duration { return time.Since(l.begin) }

// Do sends a request once and keeps what became of it.
func (l *Log) Do(ctx context.Context, client int, through string, kv pb.KVClient, req proto.Message) *Op {
	return l.note(client, through, req, func() (proto.Message, error) { return Send(ctx, kv, req) })
}

// Stream is Do for a range that is read as a stream: the reply is its pages, merged.
func (l *Log) Stream(ctx context.Context, client int, through string, kv pb.KVClient, req *pb.RangeRequest) *Op {
	return l.note(client, through+" as a stream", req, func() (proto.Message, error) { return Stream(ctx, kv, req) })
}

// note times a request and keeps it.
func (l *Log) note(client int, through string, req proto.Message, send func() (proto.Message, error)) *Op {
	o := &Op{Client: client, Through: through, Request: req, Call: time.Since(l.begin)}
	o.Reply, o.Err = send()
	o.Return = time.Since(l.begin)
	if o.Err != nil {
		o.Reply = nil
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	l.ops = append(l.ops, o)
	return o
}

// Elsewhere keeps a write that somebody who is not asked through this log may make from now on,
// such as the end of a lease.
func (l *Log) Elsewhere(req proto.Message) {
	l.note(-1, "nobody", req, func() (proto.Message, error) {
		return nil, status.Error(codes.Unavailable, "it may happen at any time")
	})
}

// Ops is everything so far.
func (l *Log) Ops() []*Op {
	l.mu.Lock()
	defer l.mu.Unlock()
	return append([]*Op(nil), l.ops...)
}

// Stream reads a range as a stream, to its end, and merges the pages as the API has it.
func Stream(ctx context.Context, kv pb.KVClient, req *pb.RangeRequest) (*pb.RangeResponse, error) {
	s, err := kv.RangeStream(ctx, req)
	if err != nil {
		return nil, err
	}
	all := &pb.RangeStreamResponse{RangeResponse: &pb.RangeResponse{}}
	for {
		page, err := s.Recv()
		if errors.Is(err, io.EOF) {
			return all.RangeResponse, nil
		}
		if err != nil {
			return nil, err
		}
		proto.Merge(all, page)
	}
}

// Send makes a request of the KV service.
func Send(ctx context.Context, kv pb.KVClient, req proto.Message) (proto.Message, error) {
	switch r := req.(type) {
	case *pb.RangeRequest:
		return kv.Range(ctx, r)
	case *pb.PutRequest:
		return kv.Put(ctx, r)
	case *pb.DeleteRangeRequest:
		return kv.DeleteRange(ctx, r)
	case *pb.TxnRequest:
		return kv.Txn(ctx, r)
	case *pb.CompactionRequest:
		return kv.Compact(ctx, r)
	}
	return nil, status.Errorf(codes.Internal, "no request of the KV service: %T", req)
}
