package stages_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"slices"
	"strings"
	"sync/atomic"
	"testing"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"

	"github.com/sharder/sharder/stages"
	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"
)

// frames reads a stream to its end.
func frames(s pb.KV_RangeStreamClient, err error) ([]*pb.RangeResponse, error) {
	if err != nil {
		return nil, err
	}
	var out []*pb.RangeResponse
	for {
		frame, err := s.Recv()
		if errors.Is(err, io.EOF) {
			return out, nil
		}
		if err != nil {
			return out, err
		}
		out = append(out, frame.RangeResponse)
	}
}

func merged(frames []*pb.RangeResponse) *pb.RangeResponse {
	out := &pb.RangeResponse{}
	for _, f := range frames {
		proto.Merge(out, f)
	}
	return out
}

func randomStreams(t *testing.T, f *front) {
	rnd := rand.New(rand.NewPCG(3, 5))
	f.scatterWrites(rnd, 250)
	compareStreams(t, f, rnd, 150)
}

func compareStreams(t *testing.T, f *front, rnd *rand.Rand, n int) {
	t.Helper()
	for i := range n {
		req := randomRequest(rnd, 1)
		req.SortTarget, req.SortOrder = pb.RangeRequest_KEY, pb.RangeRequest_SortOrder(rnd.IntN(2))
		req.MinModRevision, req.MaxModRevision, req.MinCreateRevision, req.MaxCreateRevision = 0, 0, 0, 0
		req.Limit = pick[int64](rnd, 0, 0, 1, 3, 10, 11, 50, 1000)
		got, err := frames(f.kv.RangeStream(f.ctx(), req))
		if err != nil {
			t.Fatalf("%v: %v", req, err)
		}
		etcd, err := frames(f.ref.RangeStream(f.ctx(), req))
		if err != nil {
			t.Fatal(err)
		}
		whole := must(t)(f.kv.Range(f.ctx(), req)).(*pb.RangeResponse)
		m := merged(got)
		if !answerOf(m).equal(answerOf(whole)) || !proto.Equal(m.Header, whole.Header) {
			t.Fatalf("stream %d, %v:\ngot   %v %v\nrange %v %v", i, req, m.Header, answerOf(m), whole.Header, answerOf(whole))
		}
		if !sameButRevisions(answerOf(m), answerOf(merged(etcd))) {
			t.Fatalf("stream %d, %v:\ngot  %v\netcd %v", i, req, answerOf(m), answerOf(merged(etcd)))
		}
	}
}

func lastFrame(t *testing.T, f *front) {
	for i := range 600 {
		f.both(&pb.PutRequest{Key: fmt.Appendf(nil, "%s%03d", []string{"a", "h", "p/", "t"}[i%4], i), Value: []byte("v")})
	}
	req := everything()
	req.Limit = 550
	got, err := frames(f.kv.RangeStream(f.ctx(), req))
	if err != nil || len(got) < 2 {
		t.Fatalf("%d frames, %v", len(got), err)
	}
	for i, frame := range got {
		last := i == len(got)-1
		if (frame.Header != nil) != last || frame.More != last || (frame.Count == 600) != last || len(frame.Kvs) == 0 {
			t.Errorf("frame %d of %d: header %v, more %v, count %d, %d keys", i, len(got), frame.Header, frame.More, frame.Count, len(frame.Kvs))
		}
	}
	one := &pb.RangeRequest{Key: []byte("t"), RangeEnd: []byte{0}}
	got, err = frames(f.kv.RangeStream(f.ctx(), one))
	want, werr := frames(f.raw()[2].RangeStream(f.ctx(), one))
	if err != nil || werr != nil || !slices.EqualFunc(got, want, func(a, b *pb.RangeResponse) bool { return proto.Equal(a, b) }) {
		t.Errorf("on one shard: %d frames (%v), the shard's own are %d (%v)", len(got), err, len(want), werr)
	}
	none, err := frames(f.kv.RangeStream(f.ctx(), &pb.RangeRequest{Key: []byte("b"), RangeEnd: []byte("h")}))
	if err != nil || len(none) != 1 || none[0].Header == nil || none[0].Count != 0 {
		t.Errorf("of nothing: %v, %v", none, err)
	}
}

func streamRefusals(t *testing.T, f *front) {
	for _, req := range []*pb.RangeRequest{
		{},
		{Key: []byte("a"), RangeEnd: []byte("z"), SortOrder: pb.RangeRequest_DESCEND},
		{Key: []byte("a"), RangeEnd: []byte("z"), SortOrder: pb.RangeRequest_ASCEND, SortTarget: pb.RangeRequest_MOD},
		{Key: []byte("a"), RangeEnd: []byte("z"), SortOrder: pb.RangeRequest_DESCEND, MinModRevision: 1},
		{Key: []byte("a"), RangeEnd: []byte("z"), MaxCreateRevision: 5},
		{Key: []byte("a"), SortOrder: 9},
		{Key: []byte("t"), RangeEnd: []byte("z"), Revision: 1 << 40},
	} {
		_, got := frames(f.kv.RangeStream(f.ctx(), req))
		_, want := frames(f.ref.RangeStream(f.ctx(), req))
		refusedAlike(t, got, want)
	}
	_, err := frames(f.kv.RangeStream(f.ctx(), &pb.RangeRequest{Key: []byte("a"), RangeEnd: []byte("h"), Revision: 3}))
	wantStatus(t, err, codes.FailedPrecondition, `sharder: range at revision 3 over several shards: "a" is on shard "a", "g" on shard "b"; `+
		`each shard has revisions of its own: read without a revision, or a range that lies on one shard`)
	_, err = frames(f.kv.RangeStream(f.ctx(), &pb.RangeRequest{Key: []byte("\x00a")}))
	wantStatus(t, err, codes.InvalidArgument, `sharder: key "\x00a" is reserved: keys that begin with a NUL byte are sharder's own`)
}

// streamIsPinned writes between the count and the pages: none of it may show.
func streamIsPinned(t *testing.T, f *front) {
	f.seed("a", "b", "h", "i", "t", "u")
	stream := stages.RangeStream(f.table, stages.StreamOptions{Call: func(ctx context.Context, call stages.Call) (stages.Reply, error) {
		r, err := stages.CallShard(ctx, call)
		kv := pb.NewKVClient(call.Shard.Conn)
		must(t)(kv.Put(ctx, &pb.PutRequest{Key: []byte("zz"), Value: []byte("late")}))
		must(t)(kv.DeleteRange(ctx, &pb.DeleteRangeRequest{Key: []byte("b"), RangeEnd: []byte("u")}))
		return r, err
	}})
	kv := pb.NewKVClient(serveKV(t, &streamOnly{stream: stream}))
	got, err := frames(kv.RangeStream(f.ctx(), everything()))
	if err != nil {
		t.Fatal(err)
	}
	if m := merged(got); m.Count != 6 || !slices.Equal(keysOf(m.Kvs), []string{"a", "b", "h", "i", "t", "u"}) {
		t.Fatalf("got %v", answerOf(m))
	}
}

// streamOnly serves nothing but RangeStream.
type streamOnly struct {
	pb.UnimplementedKVServer
	stream func(*pb.RangeRequest, pb.KV_RangeStreamServer) error
}

func (s *streamOnly) RangeStream(r *pb.RangeRequest, out pb.KV_RangeStreamServer) error {
	return s.stream(r, out)
}

// oldEtcd is the connection to an etcd that does not know RangeStream, or one of
// whose members lags behind.
type oldEtcd struct {
	grpc.ClientConnInterface
	noStream *atomic.Bool
	lagging  *atomic.Bool
	breaks   *atomic.Bool
}

func (c *oldEtcd) NewStream(ctx context.Context, desc *grpc.StreamDesc, method string, opts ...grpc.CallOption) (grpc.ClientStream, error) {
	if strings.HasSuffix(method, "/RangeStream") && c.noStream.Load() {
		// What gRPC makes of a method that the server does not have.
		return c.ClientConnInterface.NewStream(ctx, desc, "/etcdserverpb.KV/NoSuchMethod", opts...)
	}
	s, err := c.ClientConnInterface.NewStream(ctx, desc, method, opts...)
	return &lagging{s, c.lagging, c.breaks, 0}, err
}

// lagging answers a serializable read at a revision as a member does that has not
// come to it; with breaks, only after a frame.
type lagging struct {
	grpc.ClientStream
	on     *atomic.Bool
	breaks *atomic.Bool
	got    int
}

func (s *lagging) RecvMsg(m any) error {
	if s.got++; s.got > 1 && s.breaks.Load() {
		return rpctypes.ErrGRPCFutureRev
	}
	return s.ClientStream.RecvMsg(m)
}

func (s *lagging) SendMsg(m any) error {
	if r, ok := m.(*pb.RangeRequest); ok && s.on.Load() && r.Serializable && r.Revision > 0 {
		r = proto.Clone(r).(*pb.RangeRequest)
		r.Revision = 1 << 50
		return s.ClientStream.SendMsg(r)
	}
	return s.ClientStream.SendMsg(m)
}

func TestRangeStreamOverOldOrLaggingShards(t *testing.T) {
	var noStream, lags, breaks atomic.Bool
	f := newFront(t, []string{"a", "b", "c"}, threeRoutes, func(c *config) {
		c.conn = func(conn grpc.ClientConnInterface) grpc.ClientConnInterface {
			return &oldEtcd{conn, &noStream, &lags, &breaks}
		}
		c.stream = stages.StreamOptions{PageBytes: 200, Ahead: -1}
	})
	f.run("shards without RangeStream are read page by page", func(t *testing.T, f *front) {
		noStream.Store(true)
		defer noStream.Store(false)
		rnd := rand.New(rand.NewPCG(8, 9))
		f.scatterWrites(rnd, 250)
		for range 60 {
			req := randomRequest(rnd, 1)
			req.SortTarget, req.SortOrder, req.CountOnly = pb.RangeRequest_KEY, pb.RangeRequest_NONE, false
			req.MinModRevision, req.MaxModRevision, req.MinCreateRevision, req.MaxCreateRevision = 0, 0, 0, 0
			f.fetched.Store(0)
			got, err := frames(f.kv.RangeStream(f.ctx(), req))
			fetched := f.fetched.Load()
			if req.Limit > 0 && req.Limit < 1000 && fetched > 3*req.Limit {
				t.Fatalf("%v: %d key-values fetched", req, fetched)
			}
			if status.Code(err) == codes.Unimplemented && len(f.table.Range(req.Key, req.RangeEnd)) == 1 {
				continue // one shard's own answer
			}
			want := must(t)(f.kv.Range(f.ctx(), req)).(*pb.RangeResponse)
			if err != nil || !answerOf(merged(got)).equal(answerOf(want)) {
				t.Fatalf("%v: %v\ngot  %v\nwant %v", req, err, answerOf(merged(got)), answerOf(want))
			}
		}
	})
	f.run("a serializable stream does not fail on a member that lags", func(t *testing.T, f *front) {
		lags.Store(true)
		defer lags.Store(false)
		f.seed("a", "h", "t")
		req := everything()
		req.Serializable = true
		got, err := frames(f.kv.RangeStream(f.ctx(), req))
		if err != nil || len(merged(got).Kvs) != 3 {
			t.Fatalf("got %v, %v", merged(got), err)
		}
		req.Revision = 1 << 50 // asked for by the client itself, on one shard: its own answer
		req.Key = []byte("t")
		_, err = frames(f.kv.RangeStream(f.ctx(), req))
		sameStatus(t, err, rpctypes.ErrGRPCFutureRev)
	})
	f.run("a stream that breaks after a page is not begun again", func(t *testing.T, f *front) {
		breaks.Store(true)
		defer breaks.Store(false)
		for i := range 60 {
			must(t)(f.kv.Put(f.ctx(), &pb.PutRequest{Key: fmt.Appendf(nil, "%s%03d", []string{"a", "h", "t"}[i%3], i)}))
		}
		req := everything()
		req.Serializable = true
		got, err := frames(f.kv.RangeStream(f.ctx(), req))
		sameStatus(t, err, rpctypes.ErrGRPCFutureRev)
		keys := keysOf(merged(got).Kvs)
		if !slices.IsSorted(keys) || len(slices.Compact(slices.Clone(keys))) != len(keys) || len(keys) >= 60 {
			t.Errorf("got %v", keys)
		}
	})
	f.run("a shard that fails half-way ends the stream without a last frame", func(t *testing.T, f *front) {
		f.seed("a", "b", "h", "i", "t", "u")
		noStream.Store(true)
		defer noStream.Store(false)
		stream := stages.RangeStream(f.table, stages.StreamOptions{Call: func(ctx context.Context, call stages.Call) (stages.Reply, error) {
			if call.Shard.Name == "c" && !call.Request.GetRequestRange().CountOnly {
				return stages.Reply{}, &stages.ShardError{Shard: call.Shard, Err: rpctypes.ErrGRPCCompacted}
			}
			return stages.CallShard(ctx, call)
		}})
		kv := pb.NewKVClient(serveKV(t, &streamOnly{stream: stream}))
		got, err := frames(kv.RangeStream(f.ctx(), everything()))
		sameStatus(t, err, rpctypes.ErrGRPCCompacted)
		for _, frame := range got {
			if frame.Header != nil || frame.Count != 0 {
				t.Errorf("a last frame: %v", frame)
			}
		}
	})
	f.run("a client that leaves ends the streams to the shards", func(t *testing.T, f *front) {
		for i := range 300 {
			must(t)(f.kv.Put(f.ctx(), &pb.PutRequest{Key: fmt.Appendf(nil, "%s%03d", []string{"a", "h", "t"}[i%3], i), Value: make([]byte, 20<<10)}))
		}
		// A window that does not grow: else all may be here before the client leaves.
		conn, err := grpc.NewClient("passthrough:///"+listenKV(t, f), grpc.WithTransportCredentials(insecure.NewCredentials()),
			grpc.WithInitialWindowSize(64<<10), grpc.WithInitialConnWindowSize(64<<10))
		if err != nil {
			t.Fatal(err)
		}
		defer conn.Close()
		ctx, cancel := context.WithCancelCause(f.ctx())
		s, err := pb.NewKVClient(conn).RangeStream(ctx, everything())
		if err != nil {
			t.Fatal(err)
		}
		if _, err := s.Recv(); err != nil {
			t.Fatal(err)
		}
		cancel(nil) // goleak and the server's Stop see whether anything stays
		if _, err := frames(s, nil); status.Code(err) != codes.Canceled {
			t.Fatalf("got %v", err)
		}
	})
}
