package cache_test

import (
	"context"
	"log/slog"
	"math"
	"net"
	"os"
	"slices"
	"testing"
	"time"

	"github.com/sourcegraph/conc"
	"google.golang.org/grpc"
	"google.golang.org/grpc/backoff"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/protobuf/proto"

	"github.com/sharder/sharder/integration/etcdtest"
	"github.com/sharder/sharder/pipeline"
	"github.com/sharder/sharder/stages"
	"github.com/sharder/sharder/stages/cache"
	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	clientv3 "go.etcd.io/etcd/client/v3"
	"go.etcd.io/etcd/server/v3/embed"
)

// rig is a server with a cache in front of a real etcd, with the chains of one shard: the
// client's identity goes along, and what is not KV or LeaseRevoke is passed on.
type rig struct {
	t        testing.TB
	cache    *cache.Cache
	endpoint string
	kv       pb.KVClient      // through the cache
	lease    pb.LeaseClient   // likewise
	conn     *grpc.ClientConn // likewise
	etcd     pb.KVClient      // straight to what is behind it

	pb.UnsafeKVServer
	pb.UnimplementedLeaseServer
	rng    pipeline.Stage[*pb.RangeRequest, *pb.RangeResponse]
	put    pipeline.Stage[*pb.PutRequest, *pb.PutResponse]
	del    pipeline.Stage[*pb.DeleteRangeRequest, *pb.DeleteRangeResponse]
	txn    pipeline.Stage[*pb.TxnRequest, *pb.TxnResponse]
	frame  pipeline.Stage[*pb.RangeRequest, *stages.Frame] // rng undecoded
	revoke pipeline.Stage[*pb.LeaseRevokeRequest, *pb.LeaseRevokeResponse]
	shard  *stages.Shard
}

// options change a rig.
type options struct {
	cache.Options
	decoded  bool                                                                                      // answers are decoded on their way to clients; else as little as with one shard
	ordering bool                                                                                      // serializable reads must not go back
	conn     func(grpc.ClientConnInterface) grpc.ClientConnInterface                                   // around the one to the shard
	call     func(pipeline.Stage[stages.Call, stages.Reply]) pipeline.Stage[stages.Call, stages.Reply] // around every call, inside the cache
	target   string                                                                                    // the etcd as the cache sees it
}

// newRig runs a server with a cache in front of an etcd.
func newRig(t testing.TB, e *etcdtest.Etcd, change func(*options)) *rig {
	t.Helper()
	return newRigTo(t, etcdtest.Conn(t, e.Endpoint), e.Endpoint, change)
}

func newRigTo(t testing.TB, direct grpc.ClientConnInterface, target string, change func(*options)) *rig {
	t.Helper()
	o := options{target: target}
	o.MaxAge, o.AuthInterval = time.Minute, time.Minute // a test that needs them to be short says so
	if change != nil {
		change(&o)
	}
	r := &rig{t: t, etcd: pb.NewKVClient(direct)}
	r.shard = &stages.Shard{Name: "a", Conn: shardConn(t, o.target), Lane: pipeline.NewLink(1000, 1000)}
	table, err := stages.NewTable([]stages.Route{{Shards: []string{"a"}}}, []*stages.Shard{r.shard})
	if err != nil {
		t.Fatal(err)
	}
	o.Shard = r.shard
	if os.Getenv("CACHE_LOG") != "" {
		o.Logger = slog.New(slog.NewTextHandler(os.Stderr, &slog.HandlerOptions{Level: slog.LevelDebug}))
	}
	if o.conn != nil {
		r.shard.Conn = o.conn(r.shard.Conn)
	}
	if o.ordering {
		o.Monotonic = stages.NewMonotonic([]*stages.Shard{r.shard})
	}
	r.cache = cache.New(o.Options)
	wrap := func(call pipeline.Stage[stages.Call, stages.Reply]) pipeline.Stage[stages.Call, stages.Reply] {
		if call = stages.ForwardIdentity(call); o.call != nil {
			call = o.call(call)
		}
		return r.cache.Around(o.Monotonic.Around(call))
	}
	call := wrap(stages.CallShard)
	route := stages.RouteOp(table)
	r.rng = r.cache.Range(pipeline.Chain5(stages.Decoder{}.Range, route, pipeline.Scatter(call), stages.MergeRange, stages.EncodeRange))
	r.put = pipeline.Chain5(stages.Decoder{}.Put, route, pipeline.Scatter(call), stages.Gather, stages.EncodePut)
	r.del = pipeline.Chain5(stages.Decoder{}.DeleteRange, route, stages.ScatterDelete(call), stages.MergeDelete, stages.EncodeDeleteRange)
	r.txn = pipeline.Chain5(stages.Decoder{}.Txn, route, pipeline.Scatter(call), stages.Gather, stages.EncodeTxn)
	r.revoke = r.cache.Revoke(func(ctx context.Context, in *pb.LeaseRevokeRequest) (*pb.LeaseRevokeResponse, error) {
		return pb.NewLeaseClient(r.shard.Conn).LeaseRevoke(stages.ForwardMetadata(ctx), in)
	})
	r.serve(r.desc(o.decoded, wrap(stages.CallFrame)))
	return r
}

// desc is the KV service: with answers that are decoded, or not.
func (r *rig) desc(decoded bool, call pipeline.Stage[stages.Call, stages.Reply]) *grpc.ServiceDesc {
	desc := pb.KV_ServiceDesc
	d, to := stages.Decoder{}, stages.ToShard(r.shard)
	r.frame = r.cache.RangeFrame(pipeline.Chain4(d.Range, to, call, stages.EncodeFrame))
	if decoded {
		return &desc
	}
	desc.Methods = slices.Clone(desc.Methods)
	for i, m := range desc.Methods {
		switch m.MethodName {
		case "Range":
			desc.Methods[i].Handler = unread(r.frame)
		case "Put":
			desc.Methods[i].Handler = unread(pipeline.Chain4(d.Put, to, call, stages.EncodeFrame))
		case "DeleteRange":
			desc.Methods[i].Handler = unread(pipeline.Chain4(d.DeleteRange, to, call, stages.EncodeFrame))
		case "Txn":
			desc.Methods[i].Handler = unread(pipeline.Chain4(d.Txn, to, call, stages.EncodeFrame))
		}
	}
	return &desc
}

func unread[I any](chain pipeline.Stage[*I, *stages.Frame]) grpc.MethodHandler {
	return func(_ any, ctx context.Context, decode func(any) error, _ grpc.UnaryServerInterceptor) (any, error) {
		in := new(I)
		if err := decode(in); err != nil {
			return nil, err
		}
		return edge(ctx, chain, in)
	}
}

// shardConn is a connection that comes back soon after the other end does.
func shardConn(t testing.TB, addr string) *grpc.ClientConn {
	t.Helper()
	c, err := grpc.NewClient("passthrough:///"+addr,
		grpc.WithTransportCredentials(insecure.NewCredentials()),
		grpc.WithDefaultCallOptions(grpc.MaxCallRecvMsgSize(math.MaxInt32)),
		grpc.WithConnectParams(grpc.ConnectParams{Backoff: backoff.Config{BaseDelay: 20 * time.Millisecond, Multiplier: 1.5, MaxDelay: 200 * time.Millisecond}, MinConnectTimeout: time.Second}))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	return c
}

func (r *rig) serve(kv *grpc.ServiceDesc) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		r.t.Fatal(err)
	}
	relay := stages.NewRelay(r.shard)
	g := grpc.NewServer(grpc.MaxSendMsgSize(math.MaxInt32), grpc.UnknownServiceHandler(r.cache.Relayed(relay.Handle)), grpc.ForceServerCodecV2(stages.FrameCodec))
	g.RegisterService(kv, r)
	pb.RegisterLeaseServer(g, r)
	ctx, cancel := context.WithCancel(context.Background())
	var wg conc.WaitGroup
	wg.Go(func() { _ = r.cache.Run(ctx) })
	wg.Go(func() { _ = g.Serve(l) })
	r.t.Cleanup(func() {
		g.Stop()
		relay.Wait()
		cancel()
		wg.Wait()
	})
	r.endpoint = l.Addr().String()
	r.conn = etcdtest.Conn(r.t, r.endpoint)
	r.kv, r.lease = pb.NewKVClient(r.conn), pb.NewLeaseClient(r.conn)
}

func edge[I, O any](ctx context.Context, s pipeline.Stage[I, O], in I) (O, error) {
	out, err := s(ctx, in)
	if err != nil {
		err = stages.Fail(ctx, err)
	}
	return out, err
}

func (r *rig) Range(ctx context.Context, in *pb.RangeRequest) (*pb.RangeResponse, error) {
	return edge(ctx, r.rng, in)
}

func (r *rig) Put(ctx context.Context, in *pb.PutRequest) (*pb.PutResponse, error) {
	return edge(ctx, r.put, in)
}

func (r *rig) DeleteRange(ctx context.Context, in *pb.DeleteRangeRequest) (*pb.DeleteRangeResponse, error) {
	return edge(ctx, r.del, in)
}

func (r *rig) Txn(ctx context.Context, in *pb.TxnRequest) (*pb.TxnResponse, error) {
	return edge(ctx, r.txn, in)
}

func (r *rig) Compact(ctx context.Context, in *pb.CompactionRequest) (*pb.CompactionResponse, error) {
	return pb.NewKVClient(r.shard.Conn).Compact(ctx, in)
}

func (r *rig) RangeStream(*pb.RangeRequest, pb.KV_RangeStreamServer) error {
	panic("nobody asks for it here")
}

func (r *rig) LeaseRevoke(ctx context.Context, in *pb.LeaseRevokeRequest) (*pb.LeaseRevokeResponse, error) {
	return edge(ctx, r.revoke, in)
}

// read is a serializable read through the cache.
func (r *rig) read(ctx context.Context, q *pb.RangeRequest) *pb.RangeResponse {
	r.t.Helper()
	q = proto.CloneOf(q) // tests share them
	q.Serializable = true
	resp, err := r.kv.Range(ctx, q)
	if err != nil {
		r.t.Fatal(err)
	}
	return resp
}

// warm reads until it is answered from memory.
func (r *rig) warm(ctx context.Context, q *pb.RangeRequest) *pb.RangeResponse {
	r.t.Helper()
	for began := time.Now(); ; time.Sleep(time.Millisecond) {
		before := r.cache.Stats().Hits
		resp := r.read(ctx, q)
		if r.cache.Stats().Hits > before {
			return resp
		}
		if time.Since(began) > time.Minute {
			r.t.Fatalf("%v was not cached in a minute: %+v", q, r.cache.Stats())
		}
	}
}

// value is what a read of a single key found, "" if nothing.
func value(resp *pb.RangeResponse) string {
	if len(resp.Kvs) == 0 {
		return ""
	}
	return string(resp.Kvs[0].Value)
}

// put writes a key, straight or through the cache.
func put(t testing.TB, kv pb.KVClient, key, value string, lease int64) int64 {
	t.Helper()
	resp, err := kv.Put(t.Context(), &pb.PutRequest{Key: []byte(key), Value: []byte(value), Lease: lease})
	if err != nil {
		t.Fatal(err)
	}
	return resp.Header.Revision
}

// eventually waits until a condition holds.
func eventually(t testing.TB, within time.Duration, what string, ok func() bool) {
	t.Helper()
	for began := time.Now(); !ok(); time.Sleep(2 * time.Millisecond) {
		if time.Since(began) > within {
			t.Fatalf("%s: not after %v", what, within)
		}
	}
}

func key(k string) *pb.RangeRequest { return &pb.RangeRequest{Key: []byte(k)} }

func span(k, end string) *pb.RangeRequest {
	return &pb.RangeRequest{Key: []byte(k), RangeEnd: []byte(end)}
}

func prefix(k string) *pb.RangeRequest { return span(k, clientv3.GetPrefixRangeEnd(k)) }

// quick has passwords hashed quickly.
func quick(c *embed.Config) { c.BcryptCost = 4 }
