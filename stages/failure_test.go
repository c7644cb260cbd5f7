package stages_test

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync/atomic"
	"testing"

	"github.com/sourcegraph/conc"
	"google.golang.org/genproto/googleapis/rpc/errdetails"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"

	"github.com/sharder/sharder/integration/etcdtest"
	"github.com/sharder/sharder/pipeline"
	"github.com/sharder/sharder/stages"
	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"
)

// gate is a middleware that holds calls to one shard while it is closed.
type gate struct {
	shard  atomic.Pointer[string]
	inside chan struct{} // one value per call that is held
	open   chan struct{}
}

func (g *gate) middleware(next pipeline.Stage[stages.Call, stages.Reply]) pipeline.Stage[stages.Call, stages.Reply] {
	return func(ctx context.Context, call stages.Call) (stages.Reply, error) {
		if name := g.shard.Load(); name != nil && *name == call.Shard.Name {
			g.inside <- struct{}{}
			select {
			case <-g.open:
			case <-ctx.Done():
				return stages.Reply{}, context.Cause(ctx)
			}
		}
		return next(ctx, call)
	}
}

func TestAFailingShardFailsItsOwnRequestsOnly(t *testing.T) {
	g := &gate{inside: make(chan struct{}, 10), open: make(chan struct{})}
	f := newFront(t, []string{"a", "b", "c"}, threeRoutes, func(c *config) {
		c.lane = func() *pipeline.Link { return pipeline.NewLink(1, 0) }
		c.call = append(c.call, g.middleware)
	})
	f.run("a full lane is etcd's too many requests, for its shard alone", func(t *testing.T, f *front) { fullLane(t, f, g) })
	f.run("a delete says what each shard did when one is busy", func(t *testing.T, f *front) { partialDelete(t, f, g) })
	f.run("a shard that is down", shardDown) // last: it stays down
}

// holdB sends a request to shard b and returns when it is in flight; release lets
// it end and waits for that.
func holdB(t *testing.T, f *front, g *gate) (release func()) {
	b := "b"
	g.shard.Store(&b)
	var held conc.WaitGroup
	var err error
	held.Go(func() {
		_, err = f.kv.Range(f.ctx(), &pb.RangeRequest{Key: []byte("h")})
	})
	<-g.inside
	return func() {
		g.shard.Store(nil)
		g.open <- struct{}{}
		held.Wait()
		if err != nil {
			t.Errorf("the request that was held: %v", err)
		}
	}
}

func fullLane(t *testing.T, f *front, g *gate) {
	f.seed("a", "h", "t")
	release := holdB(t, f, g)
	defer release()
	_, err := f.kv.Range(f.ctx(), &pb.RangeRequest{Key: []byte("i")})
	sameStatus(t, err, rpctypes.ErrGRPCRequestTooManyRequests)
	_, err = f.kv.Range(f.ctx(), everything())
	sameStatus(t, err, rpctypes.ErrGRPCRequestTooManyRequests)
	must(t)(f.kv.Range(f.ctx(), &pb.RangeRequest{Key: []byte("a")}))
	must(t)(f.kv.Put(f.ctx(), &pb.PutRequest{Key: []byte("t")}))
}

func partialDelete(t *testing.T, f *front, g *gate) {
	f.seed("a", "b", "h", "t")
	release := holdB(t, f, g)
	all := &pb.DeleteRangeRequest{Key: []byte{0}, RangeEnd: []byte{0}}
	_, err := f.kv.DeleteRange(f.ctx(), all)
	release()
	wantStatus(t, err, codes.ResourceExhausted, `sharder: delete range over several shards was done in part: `+
		`shard "a" deleted 2; shard "b" deleted nothing (etcdserver: too many requests); shard "c" deleted 1`)
	left := must(t)(f.kv.Range(f.ctx(), everything())).(*pb.RangeResponse)
	if got := keysOf(left.Kvs); !slices.Equal(got, []string{"h"}) {
		t.Errorf("left %v", got)
	}
	// Nothing deleted anywhere: the error is as it is.
	release = holdB(t, f, g)
	_, err = f.kv.DeleteRange(f.ctx(), all)
	release()
	sameStatus(t, err, rpctypes.ErrGRPCRequestTooManyRequests)
}

func shardDown(t *testing.T, f *front) {
	f.seed("a", "h", "t")
	f.etcds[1].Stop()
	ctx := f.ctx()
	_, err := f.kv.Range(ctx, &pb.RangeRequest{Key: []byte("h")})
	named := func(err error) bool {
		st := status.Convert(err)
		return st.Code() == codes.Unavailable && strings.HasPrefix(st.Message(), "sharder: shard b: ") && !strings.Contains(st.Message(), "rpc error")
	}
	if !named(err) {
		t.Errorf("one key: %v", err)
	}
	if _, err = f.kv.Range(ctx, everything()); !named(err) {
		t.Errorf("over all shards: %v", err)
	}
	must(t)(f.kv.Put(ctx, &pb.PutRequest{Key: []byte("t")}))
	if _, err = frames(f.kv.RangeStream(ctx, everything())); !named(err) {
		t.Errorf("stream: %v", err)
	}
	if _, err = frames(f.kv.RangeStream(ctx, &pb.RangeRequest{Key: []byte("h")})); !named(err) {
		t.Errorf("stream of one shard: %v", err)
	}
	_, err = f.kv.DeleteRange(ctx, &pb.DeleteRangeRequest{Key: []byte{0}, RangeEnd: []byte{0}})
	st := status.Convert(err)
	if st.Code() != codes.Unavailable || !strings.HasPrefix(st.Message(), `sharder: delete range over several shards was done in part: `+
		`shard "a" deleted 1; shard "b": outcome unknown (sharder: shard b: `) || !strings.HasSuffix(st.Message(), `; shard "c" deleted 1`) {
		t.Errorf("delete: %v", err)
	}
}

// relay is a KV server in front of a real etcd that adds metadata of its own and
// keeps what it was sent.
type relay struct {
	pb.UnimplementedKVServer
	etcd pb.KVClient
	seen chan metadata.MD
}

func (r *relay) Range(ctx context.Context, req *pb.RangeRequest) (*pb.RangeResponse, error) {
	md, _ := metadata.FromIncomingContext(ctx)
	r.seen <- md
	grpc.SetHeader(ctx, metadata.Pairs("from-shard", "header"))
	grpc.SetTrailer(ctx, metadata.Pairs("from-shard-trailer", "trailer"))
	return r.etcd.Range(ctx, req)
}

func (r *relay) RangeStream(req *pb.RangeRequest, out pb.KV_RangeStreamServer) error {
	md, _ := metadata.FromIncomingContext(out.Context())
	r.seen <- md
	out.SetHeader(metadata.Pairs("from-shard", "header"))
	out.SetTrailer(metadata.Pairs("from-shard-trailer", "trailer"))
	s, err := r.etcd.RangeStream(out.Context(), req)
	if err != nil {
		return err
	}
	for {
		frame, err := s.Recv()
		if err != nil {
			return nil
		}
		out.Send(frame)
	}
}

func TestWithOneShardMetadataPassesBothWays(t *testing.T) {
	r := &relay{seen: make(chan metadata.MD, 4)}
	f := newFront(t, []string{"only"}, []stages.Route{plain("", "only")}, func(c *config) {
		c.decoder = stages.Decoder{}
		c.conn = func(conn grpc.ClientConnInterface) grpc.ClientConnInterface {
			r.etcd = pb.NewKVClient(conn)
			return serveKV(t, r)
		}
		c.call = append(c.call, stages.ForwardIdentity)
		c.stream.Context = stages.ForwardMetadata
	})
	ctx := metadata.AppendToOutgoingContext(f.ctx(), "token", "secret", "hasleader", "true", "client-api-version", "3.7", "some-bin", "\x00\x01")
	check := func(header, trailer metadata.MD) {
		t.Helper()
		got := <-r.seen
		for k, want := range map[string]string{"token": "secret", "hasleader": "true", "client-api-version": "3.7", "some-bin": "\x00\x01"} {
			if !slices.Equal(got[k], []string{want}) {
				t.Errorf("the shard saw %s = %q", k, got[k])
			}
		}
		if len(got["user-agent"]) != 1 || len(got["content-type"]) != 1 {
			t.Errorf("the shard saw the transport's keys twice: %v", got)
		}
		if !slices.Equal(header["from-shard"], []string{"header"}) || !slices.Equal(trailer["from-shard-trailer"], []string{"trailer"}) {
			t.Errorf("the client saw header %v and trailer %v", header, trailer)
		}
		if len(header["content-type"]) != 1 {
			t.Errorf("content-type: %v", header["content-type"])
		}
	}
	var header, trailer metadata.MD
	must(t)(f.kv.Range(ctx, &pb.RangeRequest{Key: []byte("\x00")}, grpc.Header(&header), grpc.Trailer(&trailer))) // no key is reserved here
	check(header, trailer)
	header, trailer = nil, nil
	_, err := f.kv.Range(ctx, &pb.RangeRequest{Key: []byte("k"), Revision: 1 << 40}, grpc.Header(&header), grpc.Trailer(&trailer))
	wantStatus(t, err, codes.OutOfRange, "etcdserver: mvcc: required revision is a future revision")
	check(header, trailer) // with an error, too
	s, err := f.kv.RangeStream(ctx, everything())
	if _, err := frames(s, err); err != nil {
		t.Fatal(err)
	}
	header, _ = s.Header()
	check(header, s.Trailer())
	if ctx := t.Context(); stages.ForwardMetadata(ctx) != ctx {
		t.Error("without metadata there is nothing to forward")
	}
}

func TestErrorStatusGivesClientsWhatTheyMatchOn(t *testing.T) {
	shard := &stages.Shard{Name: "b"}
	at := func(err error) error {
		return &pipeline.StageError{Stage: "range", Err: &pipeline.StageError{Stage: "call", Err: &stages.ShardError{Shard: shard, Err: err}}}
	}
	detailed, _ := status.New(codes.Unavailable, "connection lost").WithDetails(&errdetails.RetryInfo{})
	expired, cancel := context.WithTimeout(t.Context(), 0)
	defer cancel()
	for _, c := range []struct {
		name string
		in   error
		code codes.Code
		text string
	}{
		{"etcd's error", at(rpctypes.ErrGRPCCompacted), codes.OutOfRange, "etcdserver: mvcc: required revision has been compacted"},
		{"etcd's unavailable", at(rpctypes.ErrGRPCNoLeader), codes.Unavailable, "etcdserver: no leader"},
		{"transport", at(status.Error(codes.Unavailable, "connection refused")), codes.Unavailable, "sharder: shard b: connection refused"},
		{"message too large", at(status.Error(codes.ResourceExhausted, "grpc: too large")), codes.ResourceExhausted, "sharder: shard b: grpc: too large"},
		{"etcd's exhausted", at(rpctypes.ErrGRPCNoSpace), codes.ResourceExhausted, "etcdserver: mvcc: database space exceeded"},
		{"not from a shard", status.Error(codes.Unavailable, "somewhere"), codes.Unavailable, "somewhere"},
		{"unknown to etcd", at(status.Error(codes.Unknown, "auth: odd")), codes.Unknown, "auth: odd"},
		{"ours", at(status.Error(codes.FailedPrecondition, "sharder: no")), codes.FailedPrecondition, "sharder: no"},
		{"full link", at(fmt.Errorf("door: %w", pipeline.ErrFull)), codes.ResourceExhausted, "etcdserver: too many requests"},
		{"cancelled", at(context.Canceled), codes.Canceled, "context canceled"},
		{"deadline", at(context.Cause(expired)), codes.DeadlineExceeded, "context deadline exceeded"},
		{"status inside status", wrapped{codes.Unknown, at(rpctypes.ErrGRPCFutureRev)}, codes.OutOfRange, "etcdserver: mvcc: required revision is a future revision"},
		{"joined", errors.Join(errors.New("other"), at(rpctypes.ErrGRPCEmptyKey)), codes.InvalidArgument, "etcdserver: key is not provided"},
		{"anything", at(errors.New("oops")), codes.Internal, `sharder: range: call: shard "b": oops`},
		{"details", at(detailed.Err()), codes.Unavailable, "sharder: shard b: connection lost"},
	} {
		t.Run(c.name, func(t *testing.T) {
			got := stages.ErrorStatus(c.in)
			wantStatus(t, got, c.code, c.text)
			wantStatus(t, stages.ErrorStatus(got), c.code, c.text) // twice changes nothing
		})
	}
	if len(status.Convert(stages.ErrorStatus(at(detailed.Err()))).Details()) != 1 {
		t.Error("details got lost")
	}
	if stages.ErrorStatus(nil) != nil {
		t.Error("no error became one")
	}
}

// wrapped is a status that another library put around an error.
type wrapped struct {
	code codes.Code
	err  error
}

func (w wrapped) Error() string              { return "wrapped: " + w.err.Error() }
func (w wrapped) Unwrap() error              { return w.err }
func (w wrapped) GRPCStatus() *status.Status { return status.New(w.code, w.Error()) }

// Which errors leave no doubt that a shard deleted nothing. The stage that fails
// stands for a shard whose answer was lost; the others are not asked.
func TestADeleteWhoseAnswerIsLostIsOfUnknownOutcome(t *testing.T) {
	table := mustTable(t, threeRoutes, bareShards("a", "b", "c"))
	op, _ := stages.Decoder{}.DeleteRange(t.Context(), &pb.DeleteRangeRequest{Key: []byte("a"), RangeEnd: []byte("h")})
	calls, _ := stages.RouteOp(table)(t.Context(), op)
	const part = "sharder: delete range over several shards was done in part: "
	for _, c := range []struct {
		err  error
		code codes.Code
		text string
	}{
		{rpctypes.ErrGRPCTimeout, codes.Unavailable, part + `shard "a" deleted 1; shard "b": outcome unknown (etcdserver: request timed out)`},
		{rpctypes.ErrGRPCLeaderChanged, codes.Unavailable, part + `shard "a" deleted 1; shard "b": outcome unknown (etcdserver: leader changed)`},
		{context.DeadlineExceeded, codes.DeadlineExceeded, part + `shard "a" deleted 1; shard "b": outcome unknown (context deadline exceeded)`},
		{status.Error(codes.ResourceExhausted, "grpc: reply too large"), codes.ResourceExhausted,
			part + `shard "a" deleted 1; shard "b": outcome unknown (sharder: shard b: grpc: reply too large)`},
		{rpctypes.ErrGRPCPermissionDenied, codes.PermissionDenied, part + `shard "a" deleted 1; shard "b" deleted nothing (etcdserver: permission denied)`},
		{rpctypes.ErrGRPCNoSpace, codes.ResourceExhausted, part + `shard "a" deleted 1; shard "b" deleted nothing (etcdserver: mvcc: database space exceeded)`},
	} {
		_, err := stages.ScatterDelete(func(_ context.Context, call stages.Call) (stages.Reply, error) {
			if call.Shard.Name == "b" {
				return stages.Reply{}, &stages.ShardError{Shard: call.Shard, Err: c.err}
			}
			return stages.Reply{Op: op, Shard: call.Shard, Response: &pb.ResponseOp{Response: &pb.ResponseOp_ResponseDeleteRange{
				ResponseDeleteRange: &pb.DeleteRangeResponse{Deleted: 1}}}}, nil
		})(t.Context(), calls)
		wantStatus(t, stages.ErrorStatus(err), c.code, c.text)
	}
}

func TestAPanicInOneDeleteReachesItsCaller(t *testing.T) {
	e := etcdtest.Start(t)
	table := mustTable(t, threeRoutes, bareShards("a", "b", "c"))
	for _, s := range table.Shards() {
		s.Conn, s.Lane = e.Conn(), pipeline.NewLink(1, 0)
	}
	scatter := stages.ScatterDelete(stages.Lane(func(ctx context.Context, c stages.Call) (stages.Reply, error) {
		if c.Shard.Name == "b" {
			panic("boom")
		}
		return stages.CallShard(ctx, c)
	}))
	op, _ := stages.Decoder{}.DeleteRange(t.Context(), &pb.DeleteRangeRequest{Key: []byte("a"), RangeEnd: []byte("z")})
	calls, _ := stages.RouteOp(table)(t.Context(), op)
	defer func() {
		if r := recover(); !strings.Contains(fmt.Sprint(r), "boom") {
			t.Errorf("recovered %v", r)
		}
		if n := table.Shards()[1].Lane.Depth(); n != 0 {
			t.Errorf("%d places in the lane are still taken", n)
		}
	}()
	scatter(t.Context(), calls)
	t.Error("no panic")
}
