package witness

import (
	"context"
	"fmt"
	"math/rand/v2"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/backoff"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/protobuf/proto"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	"go.etcd.io/etcd/api/v3/mvccpb"

	"github.com/sharder/sharder/integration/history"
)

// Server is something that is asked: sharder, or an etcd.
type Server struct {
	Name string
	Conn *grpc.ClientConn
}

// Clients read and write a few keys through several servers, as fast as Pace allows,
// and log everything. They retry nothing. The caller stops them.
type Clients struct {
	Log *history.Log

	servers []Server
	cancel  context.CancelFunc
	ended   context.Context
	wg      sync.WaitGroup
	writes  atomic.Int64 // acknowledged
	newest  atomic.Int64 // the greatest revision of any reply
}

// ClientOptions says how Clients behave.
type ClientOptions struct {
	Clients  int
	Pace     time.Duration // rest between two requests of a client
	Patience time.Duration // how long a request may take before its outcome is unknown
	Seed     uint64
	Ops      int  // of each client, 0 is until they are stopped
	Few      bool // fewer keys: for histories that are searched
}

// StartClients starts clients that take a server at random for each request.
func StartClients(log *history.Log, o ClientOptions, servers ...Server) *Clients {
	ctx, cancel := context.WithCancel(context.Background())
	c := &Clients{Log: log, servers: servers, cancel: cancel, ended: ctx}
	for n := range o.Clients {
		one := &client{Clients: c, id: n, options: o, rand: rand.New(rand.NewPCG(o.Seed, uint64(n)))}
		c.wg.Go(one.run)
	}
	return c
}

// Writes is how many requests that may write were answered so far.
func (c *Clients) Writes() int64 { return c.writes.Load() }

// Newest is the greatest revision that any reply had so far.
func (c *Clients) Newest() int64 { return c.newest.Load() }

// Wait returns when every client has made its ops.
func (c *Clients) Wait() { c.wg.Wait() }

// Stop ends the clients and waits for them. Requests in flight get their answer.
func (c *Clients) Stop() {
	c.cancel()
	c.wg.Wait()
}

// client is one of them.
type client struct {
	*Clients
	id      int
	options ClientOptions
	rand    *rand.Rand
	seq     int
	seen    []*mvccpb.KeyValue // what the last read over everything found
}

func (c *client) run() {
	for c.options.Ops == 0 || c.seq < c.options.Ops {
		select {
		case <-c.ended.Done():
			return
		case <-time.After(time.Duration(c.rand.Int64N(int64(2*c.options.Pace) + 1))):
		}
		c.seq++
		server := c.servers[c.rand.IntN(len(c.servers))]
		ctx, cancel := context.WithTimeout(context.Background(), c.options.Patience)
		o := c.ask(ctx, server)
		cancel()
		c.note(o)
		if o.Err != nil {
			// A server that is away refuses at once: that says little, often.
			time.Sleep(4 * c.options.Pace)
		}
	}
}

// ask sends a random request. Some ranges are read as streams.
func (c *client) ask(ctx context.Context, s Server) *history.Op {
	req, kv := c.request(), pb.NewKVClient(s.Conn)
	if r, ok := req.(*pb.RangeRequest); ok && c.rand.IntN(4) == 0 {
		return c.Log.Stream(ctx, c.id, s.Name, kv, r)
	}
	return c.Log.Do(ctx, c.id, s.Name, kv, req)
}

// note learns from a reply.
func (c *client) note(o *history.Op) {
	if o.Err != nil {
		return
	}
	switch r := o.Request.(type) {
	case *pb.RangeRequest:
		if res := o.Reply.(*pb.RangeResponse); r.Revision == 0 && len(res.Kvs) > 0 {
			c.seen = res.Kvs
		}
	default:
		c.writes.Add(1)
	}
	rev := o.Reply.(interface{ GetHeader() *pb.ResponseHeader }).GetHeader().GetRevision()
	for old := c.newest.Load(); rev > old && !c.newest.CompareAndSwap(old, rev); old = c.newest.Load() {
	}
}

// value is one that no other put has.
func (c *client) value() []byte { return fmt.Appendf(nil, "%d-%d", c.id, c.seq) }

// request is a random one, over any keys.
func (c *client) request() proto.Message {
	keys := c.keys()
	key := func() []byte { return []byte(keys[c.rand.IntN(len(keys))]) }
	switch n := c.rand.IntN(100); {
	case n < 30:
		return &pb.PutRequest{Key: key(), Value: c.value(), PrevKv: c.rand.IntN(3) == 0}
	case n < 34:
		return &pb.PutRequest{Key: key(), IgnoreValue: true}
	case n < 44:
		return &pb.DeleteRangeRequest{Key: key(), PrevKv: c.rand.IntN(2) == 0}
	case n < 48:
		return &pb.DeleteRangeRequest{Key: []byte(min(keys[1], keys[3])), RangeEnd: []byte(max(keys[1], keys[3])), PrevKv: true}
	case n < 65:
		return c.swap(key())
	case n < 72:
		return c.several(keys)
	case n < 78:
		return c.snapshots()
	}
	return c.read(key())
}

// keys are those of a shard, the spread ones, or some of all of them.
func (c *client) keys() []string {
	few := 6
	if c.options.Few {
		few = 4
	}
	prefixes := []string{"a", "j", "z", "/h/"}
	if one := c.rand.IntN(6); one < len(prefixes) {
		prefixes = prefixes[one : one+1]
	}
	keys := make([]string, few)
	for i := range keys {
		keys[i] = fmt.Sprint(prefixes[i%len(prefixes)], i)
	}
	return keys
}

// read is a range of any kind: a key, some shards, everything, now or then.
func (c *client) read(key []byte) *pb.RangeRequest {
	r := &pb.RangeRequest{Key: []byte{0}, RangeEnd: []byte{0}}
	switch c.rand.IntN(8) {
	case 0:
		r.Key, r.RangeEnd = key, nil
	case 1:
		r.Key, r.RangeEnd = key, []byte("z3")
	case 2:
		r.CountOnly = true
	case 3:
		r.Limit, r.KeysOnly = 1+c.rand.Int64N(9), c.rand.IntN(2) == 0
	case 4:
		r.Serializable = true
	case 5:
		r.Revision = 1 + c.rand.Int64N(max(1, c.newest.Load()))
	}
	return r
}

// swap puts a key if it is as this client has seen it last.
func (c *client) swap(key []byte) *pb.TxnRequest {
	mod := int64(0)
	for _, kv := range c.seen {
		if string(kv.Key) == string(key) {
			mod = kv.ModRevision
		}
	}
	if c.rand.IntN(6) == 0 {
		mod += c.rand.Int64N(5) // perhaps a revision that is another's, or yet to come
	}
	result := []pb.Compare_CompareResult{pb.Compare_EQUAL, pb.Compare_EQUAL, pb.Compare_LESS, pb.Compare_GREATER}[c.rand.IntN(4)]
	return &pb.TxnRequest{
		Compare: []*pb.Compare{{Key: key, Target: pb.Compare_MOD, Result: result, TargetUnion: &pb.Compare_ModRevision{ModRevision: mod}}},
		Success: []*pb.RequestOp{putOp(key, c.value()), rangeOp(key, nil)},
		Failure: []*pb.RequestOp{rangeOp(key, nil)},
	}
}

// several writes more than one key at once, out of order.
func (c *client) several(keys []string) *pb.TxnRequest {
	return &pb.TxnRequest{Success: []*pb.RequestOp{
		putOp([]byte(keys[2]), c.value()), putOp([]byte(keys[0]), c.value()),
		{Request: &pb.RequestOp_RequestDeleteRange{RequestDeleteRange: &pb.DeleteRangeRequest{Key: []byte(keys[1])}}},
	}}
}

// snapshots reads several shards at one moment, and the past beside it.
func (c *client) snapshots() *pb.TxnRequest {
	return &pb.TxnRequest{Success: []*pb.RequestOp{
		rangeOp([]byte("a"), []byte("b")), rangeOp([]byte{0}, []byte{0}), rangeOp([]byte("z"), []byte{0}),
	}}
}

func putOp(key, value []byte) *pb.RequestOp {
	return &pb.RequestOp{Request: &pb.RequestOp_RequestPut{RequestPut: &pb.PutRequest{Key: key, Value: value}}}
}

func rangeOp(key, end []byte) *pb.RequestOp {
	return &pb.RequestOp{Request: &pb.RequestOp_RequestRange{RequestRange: &pb.RangeRequest{Key: key, RangeEnd: end}}}
}

// Dial connects to a server that may come and go: it is tried again soon. The connection
// is closed with the test.
func Dial(t testing.TB, name, endpoint string) Server {
	t.Helper()
	conn, err := grpc.NewClient("passthrough:///"+endpoint,
		grpc.WithTransportCredentials(insecure.NewCredentials()),
		grpc.WithConnectParams(grpc.ConnectParams{
			Backoff:           backoff.Config{BaseDelay: 20 * time.Millisecond, Multiplier: 1.5, MaxDelay: 200 * time.Millisecond},
			MinConnectTimeout: time.Second,
		}))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close() })
	return Server{Name: name, Conn: conn}
}
