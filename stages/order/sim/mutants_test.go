package sim

import (
	"context"
	"errors"
	"time"

	"google.golang.org/protobuf/proto"

	"github.com/sharder/sharder/pipeline"
	"github.com/sharder/sharder/stages"
	"github.com/sharder/sharder/stages/order"
	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
)

// mutant breaks one rule, from outside: by other options, another journal, or another
// piece in the chains. The judge has to notice each.
type mutant struct {
	name, why string
	options   func(*world, *order.Options)
	parts     func(*sharder)
}

type (
	callStage = pipeline.Stage[stages.Call, stages.Reply]
	opStage   = pipeline.Stage[*stages.Op, *stages.Reply]
)

var mutants = []mutant{
	{name: "read-head", why: "reads at the shards' heads, not at the cut", parts: func(s *sharder) { s.at = readHead(s) }},
	{name: "read-replayed", why: "linearizable reads at what this sharder has replayed", parts: func(s *sharder) {
		s.pin = serially(s.pin, func(r *pb.RangeRequest) bool { return r.Revision == 0 })
	}},
	{name: "past-replayed", why: "reads of the past without a position of the log", parts: func(s *sharder) {
		s.pin = serially(s.pin, func(r *pb.RangeRequest) bool { return r.Revision > 0 })
	}},
	{name: "serial-torn", why: "serializable reads take each shard's newest revision, not one cut", parts: func(s *sharder) { s.at = torn(s) }},
	{name: "position-old", why: "the log's position is taken from what was replayed", options: func(_ *world, o *order.Options) {
		o.Journal = &oldPositions{Journal: o.Journal}
	}},
	{name: "ack-early", why: "writes are acknowledged before they are covered", parts: func(s *sharder) { s.commit = ackEarly(s) }},
	{name: "error-early", why: "errors that depend on state are returned before it is covered", parts: func(s *sharder) {
		s.commit = early(s, func(_ context.Context, _ stages.Call, _ *stages.Reply, err error) bool {
			return isError(stages.ErrorStatus(err), errNotFound)
		})
	}},
	{name: "header-replayed", why: "wrote nothing: the header is what was replayed", parts: func(s *sharder) {
		s.commit = early(s, func(_ context.Context, _ stages.Call, reply *stages.Reply, err error) bool {
			return err == nil && deletedNothing(s, reply)
		})
	}},
	{name: "header-not-lowered", why: "wrote nothing: the header is the log's newest although the shard moved on", parts: func(s *sharder) {
		s.commit = early(s, func(ctx context.Context, call stages.Call, reply *stages.Reply, err error) bool {
			if err != nil || reply.Response.GetResponseDeleteRange() == nil {
				return false
			}
			rev := reply.Response.GetResponseDeleteRange().Header.Revision
			_, err = s.Now(ctx)
			return err == nil && s.Cover(ctx, call.Shard.Number, rev) == nil && deletedNothing(s, reply)
		})
	}},
	{name: "guard-skipped", why: "writes go to the shard unguarded", parts: func(s *sharder) {
		s.guard = func(next callStage) callStage { return next }
	}},
	{name: "made-up-unguarded", why: "a compare with a made-up revision is folded without the guard compare", parts: func(s *sharder) {
		s.commit = resend(s, func(_, sent stages.Call) stages.Call { sent.Guard = nil; return sent })
	}},
	{name: "untranslated", why: "compares go to the shard with global revisions", parts: func(s *sharder) {
		s.commit = resend(s, func(asked, sent stages.Call) stages.Call { sent.Request = asked.Request; return sent })
	}},
	{name: "write-repeated", why: "a write whose outcome is unknown is sent once more", parts: func(s *sharder) { s.commit = repeat(s) }},
	{name: "compact-unlogged", why: "Compact goes to the shards, not to the log", parts: func(s *sharder) { s.compact = compactShards(s) }},
	{name: "probe-never", why: "nobody looks for writes that nobody acknowledges", options: func(_ *world, o *order.Options) { o.ProbeInterval = 10 * time.Hour }},
	{name: "sweep-blind", why: "a sweep overlooks a key", parts: overlooking},
	{name: "log-gap", why: "a sharder misses an entry of the log", options: func(w *world, o *order.Options) {
		o.Journal = gappy{o.Journal, w.dice}
	}},
	{name: "cover-ahead", why: "an entry covers what is not durable yet", options: func(w *world, o *order.Options) {
		o.Journal = hasty{o.Journal, w.dice}
	}},
	{name: "append-lost", why: "an entry is acknowledged and not kept", options: func(w *world, o *order.Options) {
		o.Journal = forgetful{o.Journal, w.dice}
	}},
}

// overlooking has the shards' answers to a sweep lack the first key.
func overlooking(s *sharder) {
	for _, c := range s.conns {
		c.edit = func(req, resp proto.Message) {
			q, ok := req.(*pb.RangeRequest)
			if ok && q.KeysOnly && string(q.Key) == "\x01" && string(q.RangeEnd) == "\x00" {
				kvs := &resp.(*pb.RangeResponse).Kvs
				*kvs = (*kvs)[min(1, len(*kvs)):]
			}
		}
	}
}

// readHead reads what each shard holds now. Filters would need a translation, so those
// requests go the right way.
func readHead(s *sharder) pipeline.Middleware[stages.Call, stages.Reply] {
	right := s.at
	return func(next callStage) callStage {
		properly := right(next)
		return func(ctx context.Context, call stages.Call) (stages.Reply, error) {
			r := call.Request.GetRequestRange()
			if r.Revision > 0 || r.MinModRevision|r.MaxModRevision|r.MinCreateRevision|r.MaxCreateRevision != 0 {
				return properly(ctx, call)
			}
			r = proto.Clone(r).(*pb.RangeRequest)
			r.Serializable = false
			call.Request = get(r)
			reply, err := next(ctx, call)
			if err != nil {
				return reply, err
			}
			resp := reply.Response.GetResponseRange()
			err = s.Cover(ctx, call.Shard.Number, resp.Header.Revision)
			s.Translate(call.Shard, resp.Kvs)
			return reply, err
		}
	}
}

// serially serves some requests as if they were serializable ones.
func serially(right pipeline.Middleware[*stages.Op, *stages.Reply], which func(*pb.RangeRequest) bool) pipeline.Middleware[*stages.Op, *stages.Reply] {
	return func(next opStage) opStage {
		properly := right(next)
		return func(ctx context.Context, op *stages.Op) (*stages.Reply, error) {
			r := proto.Clone(op.Request.GetRequestRange()).(*pb.RangeRequest)
			r.Serializable = r.Serializable || which(r)
			return properly(ctx, &stages.Op{Request: get(r), Whole: op.Whole})
		}
	}
}

// torn reads each shard at the newest revision known when that shard is asked.
func torn(s *sharder) pipeline.Middleware[stages.Call, stages.Reply] {
	right := s.at
	return func(next callStage) callStage {
		properly := right(next)
		return func(ctx context.Context, call stages.Call) (stages.Reply, error) {
			if r := call.Request.GetRequestRange(); r.Serializable && r.Revision == 0 {
				time.Sleep(time.Duration(call.Shard.Number) * 5 * time.Millisecond)
				cut := s.Replayed()
				call.Op = &stages.Op{Request: call.Op.Request, Whole: call.Op.Whole, Cut: &cut}
			}
			return properly(ctx, call)
		}
	}
}

// ackEarly answers a Put as soon as the shard has it. The answer's revision is found out
// by the judge.
func ackEarly(s *sharder) pipeline.Middleware[stages.Call, stages.Reply] {
	right := s.commit
	return func(next callStage) callStage {
		properly := right(next)
		return func(ctx context.Context, call stages.Call) (stages.Reply, error) {
			r := call.Request.GetRequestPut()
			if r == nil || r.PrevKv || r.IgnoreValue {
				return properly(ctx, call)
			}
			reply, err := next(ctx, call)
			if err != nil && !ambiguous(stages.ErrorStatus(err)) {
				return properly(ctx, call) // a fence
			}
			if err == nil {
				rec := ctx.Value(recordKey{}).(*record)
				rec.shard, rec.written = int64(call.Shard.Number), reply.Response.GetResponsePut().Header.Revision
			}
			return reply, err
		}
	}
}

// early takes the answer to a Put or DeleteRange past Commit if final says so.
func early(s *sharder, final func(context.Context, stages.Call, *stages.Reply, error) bool) pipeline.Middleware[stages.Call, stages.Reply] {
	right := s.commit
	return func(next callStage) callStage {
		return func(ctx context.Context, call stages.Call) (stages.Reply, error) {
			var past *stages.Reply
			var pastErr error
			reply, err := right(func(ctx context.Context, call stages.Call) (stages.Reply, error) {
				reply, err := next(ctx, call)
				if call.Request.GetRequestTxn() == nil && final(ctx, call, &reply, err) {
					past, pastErr = &reply, err
					return stages.Reply{}, errors.New("Commit is to leave this alone")
				}
				return reply, err
			})(ctx, call)
			if past != nil {
				return *past, pastErr
			}
			return reply, err
		}
	}
}

// deletedNothing gives the answer of a DeleteRange without a match what was replayed as
// its header.
func deletedNothing(s *sharder, reply *stages.Reply) bool {
	d := reply.Response.GetResponseDeleteRange()
	if d == nil || d.Deleted > 0 {
		return false
	}
	d.Header = s.Header(s.Replayed().Revision)
	return true
}

// resend changes what Commit sends.
func resend(s *sharder, change func(asked, sent stages.Call) stages.Call) pipeline.Middleware[stages.Call, stages.Reply] {
	right := s.commit
	return func(next callStage) callStage {
		return func(ctx context.Context, asked stages.Call) (stages.Reply, error) {
			return right(func(ctx context.Context, sent stages.Call) (stages.Reply, error) {
				return next(ctx, change(asked, sent))
			})(ctx, asked)
		}
	}
}

// repeat sends what failed once more.
func repeat(s *sharder) pipeline.Middleware[stages.Call, stages.Reply] {
	right := s.commit
	return func(next callStage) callStage {
		return right(func(ctx context.Context, call stages.Call) (stages.Reply, error) {
			reply, err := next(ctx, call)
			if err != nil && ambiguous(stages.ErrorStatus(err)) {
				return next(ctx, call)
			}
			return reply, err
		})
	}
}

// compactShards compacts each shard up to where the revision is there.
func compactShards(s *sharder) pipeline.Stage[*pb.CompactionRequest, *pb.CompactionResponse] {
	return func(ctx context.Context, r *pb.CompactionRequest) (*pb.CompactionResponse, error) {
		cut, err := s.Now(ctx)
		if err != nil {
			return nil, err
		}
		if r.Revision <= cut.Compacted || r.Revision > cut.Revision {
			return s.Compact(ctx, r)
		}
		for i, c := range s.conns {
			rev := s.First(i, r.Revision+1) - 1
			_, err := pb.NewKVClient(c).Compact(ctx, &pb.CompactionRequest{Revision: rev})
			if err != nil && !isError(err, errCompacted) {
				return nil, err
			}
		}
		return &pb.CompactionResponse{Header: s.Header(cut.Revision)}, nil
	}
}
