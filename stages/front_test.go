package stages_test

import (
	"context"
	"net"
	"sync/atomic"
	"testing"
	"time"

	"github.com/sourcegraph/conc"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"

	"github.com/sharder/sharder/integration/etcdtest"
	"github.com/sharder/sharder/pipeline"
	"github.com/sharder/sharder/stages"
	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	"go.etcd.io/etcd/api/v3/mvccpb"
)

// front is an etcd endpoint made of the stages over real etcds, beside one plain
// etcd to compare it with.
type front struct {
	pb.UnimplementedKVServer
	t       *testing.T
	table   *stages.Table
	shards  []*stages.Shard
	etcds   []*etcdtest.Etcd
	kv      pb.KVClient // through the stages
	ref     pb.KVClient // the plain etcd
	refEtcd *etcdtest.Etcd

	fetched atomic.Int64 // key-values that came back from the shards
	calls   atomic.Int64 // unary calls made to them

	rng    pipeline.Stage[*pb.RangeRequest, *pb.RangeResponse]
	put    pipeline.Stage[*pb.PutRequest, *pb.PutResponse]
	del    pipeline.Stage[*pb.DeleteRangeRequest, *pb.DeleteRangeResponse]
	txn    pipeline.Stage[*pb.TxnRequest, *pb.TxnResponse]
	stream func(*pb.RangeRequest, pb.KV_RangeStreamServer) error
}

// threeRoutes put ranges on three shards and spread the keys that begin with "p/".
var threeRoutes = []stages.Route{
	{Key: []byte(""), Shards: []string{"a"}},
	{Key: []byte("g"), Shards: []string{"b"}},
	{Key: []byte("p/"), Shards: []string{"a", "b", "c"}, Hash: true},
	{Key: []byte("s"), Shards: []string{"c"}},
}

// config changes a front before it serves.
type config struct {
	decoder stages.Decoder
	conn    func(grpc.ClientConnInterface) grpc.ClientConnInterface // around every shard's
	lane    func() *pipeline.Link
	call    []pipeline.Middleware[stages.Call, stages.Reply]
	stream  stages.StreamOptions
}

// newFront serves routes over one etcd per name, and starts a reference.
func newFront(t *testing.T, names []string, routes []stages.Route, change func(*config)) *front {
	t.Helper()
	c := config{
		decoder: stages.Decoder{Reserve: true},
		conn:    func(c grpc.ClientConnInterface) grpc.ClientConnInterface { return c },
		lane:    func() *pipeline.Link { return pipeline.NewLink(16, 64) },
	}
	if change != nil {
		change(&c)
	}
	f := &front{t: t, refEtcd: etcdtest.Start(t)}
	f.ref = pb.NewKVClient(f.refEtcd.Conn())
	for i, name := range names {
		e := etcdtest.Start(t)
		f.etcds = append(f.etcds, e)
		f.shards = append(f.shards, &stages.Shard{Number: i, Name: name, Conn: c.conn(e.Conn()), Lane: c.lane()})
	}
	var err error
	if f.table, err = stages.NewTable(routes, f.shards); err != nil {
		t.Fatal(err)
	}
	f.build(c)
	f.kv = pb.NewKVClient(serveKV(t, f))
	return f
}

func (f *front) build(c config) {
	call := pipeline.Wrap(stages.CallShard, append(c.call, f.count)...)
	lane := stages.Lane(call)
	middle := func(scatter pipeline.Stage[[]stages.Call, []stages.Reply]) pipeline.Stage[*stages.Op, *stages.Reply] {
		return pipeline.Wrap(pipeline.Chain3(stages.RouteOp(f.table), scatter, stages.Gather), stages.RetryWhole)
	}
	f.rng = pipeline.Chain3(c.decoder.Range, middle(pipeline.Scatter(lane)), stages.EncodeRange)
	f.put = pipeline.Chain3(c.decoder.Put, middle(pipeline.Scatter(lane)), stages.EncodePut)
	f.del = pipeline.Chain3(c.decoder.DeleteRange, middle(stages.ScatterDelete(lane)), stages.EncodeDeleteRange)
	f.txn = pipeline.Chain3(c.decoder.Txn, middle(pipeline.Scatter(lane)), stages.EncodeTxn)
	c.stream.Decoder, c.stream.Call = c.decoder, lane
	f.stream = stages.RangeStream(f.table, c.stream)
}

// count is a middleware that counts what the shards are asked and send.
func (f *front) count(next pipeline.Stage[stages.Call, stages.Reply]) pipeline.Stage[stages.Call, stages.Reply] {
	return func(ctx context.Context, call stages.Call) (stages.Reply, error) {
		f.calls.Add(1)
		r, err := next(ctx, call)
		f.fetched.Add(int64(len(r.Response.GetResponseRange().GetKvs())))
		return r, err
	}
}

func edge[I, O any](ctx context.Context, s pipeline.Stage[I, O], in I) (O, error) {
	out, err := pipeline.Named("kv", s)(ctx, in)
	if err != nil {
		err = stages.Fail(ctx, err)
	}
	return out, err
}

func (f *front) Range(ctx context.Context, r *pb.RangeRequest) (*pb.RangeResponse, error) {
	return edge(ctx, f.rng, r)
}

func (f *front) Put(ctx context.Context, r *pb.PutRequest) (*pb.PutResponse, error) {
	return edge(ctx, f.put, r)
}

func (f *front) DeleteRange(ctx context.Context, r *pb.DeleteRangeRequest) (*pb.DeleteRangeResponse, error) {
	return edge(ctx, f.del, r)
}

func (f *front) Txn(ctx context.Context, r *pb.TxnRequest) (*pb.TxnResponse, error) {
	return edge(ctx, f.txn, r)
}

func (f *front) Compact(ctx context.Context, r *pb.CompactionRequest) (*pb.CompactionResponse, error) {
	return stages.RefuseCompact(ctx, r)
}

func (f *front) RangeStream(r *pb.RangeRequest, s pb.KV_RangeStreamServer) error {
	return f.stream(r, s)
}

// serveKV serves kv on a free loopback port and connects to it.
func serveKV(t *testing.T, kv pb.KVServer) *grpc.ClientConn {
	t.Helper()
	return etcdtest.Conn(t, listenKV(t, kv))
}

func listenKV(t *testing.T, kv pb.KVServer) (addr string) {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	s := grpc.NewServer(grpc.MaxRecvMsgSize(64<<20), grpc.MaxSendMsgSize(1<<31-1))
	pb.RegisterKVServer(s, kv)
	var serving conc.WaitGroup
	serving.Go(func() { s.Serve(l) })
	t.Cleanup(func() {
		s.Stop()
		serving.Wait()
	})
	return l.Addr().String()
}

// run starts a subtest on empty etcds, with f reporting to it.
func (f *front) run(name string, test func(t *testing.T, f *front)) {
	outer := f.t
	outer.Run(name, func(t *testing.T) {
		f.t = t
		defer func() { f.t = outer }()
		f.wipe()
		test(t, f)
	})
}

func (f *front) ctx() context.Context {
	ctx, cancel := context.WithTimeout(f.t.Context(), time.Minute)
	f.t.Cleanup(cancel)
	return ctx
}

// everything is the range of all keys.
func everything() *pb.RangeRequest { return &pb.RangeRequest{Key: []byte{0}, RangeEnd: []byte{0}} }

func (f *front) wipe() {
	f.t.Helper()
	all := &pb.DeleteRangeRequest{Key: []byte{0}, RangeEnd: []byte{0}}
	for _, kv := range append(f.raw(), f.ref) {
		must(f.t)(kv.DeleteRange(f.ctx(), all))
	}
	f.fetched.Store(0)
	f.calls.Store(0)
}

// raw gives clients straight to the shards' etcds.
func (f *front) raw() []pb.KVClient {
	kvs := make([]pb.KVClient, len(f.etcds))
	for i, e := range f.etcds {
		kvs[i] = pb.NewKVClient(e.Conn())
	}
	return kvs
}

// seed puts the same through the stages and into the reference.
func (f *front) seed(keys ...string) {
	f.t.Helper()
	for _, k := range keys {
		f.both(&pb.PutRequest{Key: []byte(k), Value: []byte("v-" + k)})
	}
}

func (f *front) both(r *pb.PutRequest) {
	f.t.Helper()
	must(f.t)(f.kv.Put(f.ctx(), r))
	must(f.t)(f.ref.Put(f.ctx(), r))
}

// must fails the test on an error of an RPC.
func must(t *testing.T) func(proto.Message, error) proto.Message {
	return func(m proto.Message, err error) proto.Message {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
		return m
	}
}

func keysOf(kvs []*mvccpb.KeyValue) []string {
	out := []string{}
	for _, kv := range kvs {
		out = append(out, string(kv.Key))
	}
	return out
}

// wantStatus checks code and text of an error exactly.
func wantStatus(t *testing.T, err error, code codes.Code, text string) {
	t.Helper()
	st := status.Convert(err)
	if st.Code() != code || st.Message() != text {
		t.Fatalf("got %v %q\nwant %v %q", st.Code(), st.Message(), code, text)
	}
}

// sameStatus checks that two errors are the same to a client.
func sameStatus(t *testing.T, got, want error) {
	t.Helper()
	g, w := status.Convert(got), status.Convert(want)
	if !proto.Equal(g.Proto(), w.Proto()) {
		t.Fatalf("got  %v %q\netcd %v %q", g.Code(), g.Message(), w.Code(), w.Message())
	}
}
