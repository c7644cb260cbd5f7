package integration

import (
	"context"
	"fmt"
	"math/rand/v2"
	"os"
	"strconv"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/encoding/prototext"
	"google.golang.org/protobuf/proto"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"

	"github.com/sharder/sharder/integration/etcdtest"
	"github.com/sharder/sharder/integration/harness"
	"github.com/sharder/sharder/integration/script"
)

// steps is how many random requests each differential test makes.
var steps = harness.Often(1500)

// seeds are those of a test with fixed ones: 1 to SHARDER_SEEDS, or to n; with
// SHARDER_SEED that one alone, to repeat a run that failed.
func seeds(t *testing.T, n uint64) (all []uint64) {
	t.Helper()
	if text := os.Getenv("SHARDER_SEEDS"); text != "" {
		var err error
		if n, err = strconv.ParseUint(text, 10, 64); err != nil {
			t.Fatal(err)
		}
	}
	if os.Getenv("SHARDER_SEED") != "" {
		return []uint64{seed(t)}
	}
	for i := range n {
		all = append(all, i+1)
	}
	return all
}

// seed is random, or SHARDER_SEED, to repeat a run that failed.
func seed(t *testing.T) uint64 {
	t.Helper()
	n := uint64(time.Now().UnixNano())
	if text := os.Getenv("SHARDER_SEED"); text != "" {
		var err error
		if n, err = strconv.ParseUint(text, 10, 64); err != nil {
			t.Fatal(err)
		}
	}
	t.Logf("SHARDER_SEED=%d repeats this run", n)
	return n
}

func TestRandomRequestsAreAnsweredAsByOneEtcdByOneShard(t *testing.T) {
	t.Parallel()
	s := harness.Start(t, harness.Single())
	differ(t, seed(t), script.OneShard, s.Endpoint)
}

func TestRandomRequestsAreAnsweredAsByOneEtcdByThreeShards(t *testing.T) {
	t.Parallel()
	s := harness.Start(t, harness.Three())
	differ(t, seed(t), script.ManyShards, s.Endpoint)
}

// pair is the two servers that get the same requests: an etcd, and sharder, of which
// there may be several processes.
type pair struct {
	t       *testing.T
	shape   script.Shape
	gen     *generator
	etcd    *grpc.ClientConn
	sharder []*grpc.ClientConn
	whole   *grpc.ClientConn // where sharder's compactions go; nil if to any of those
}

// newPair connects to both.
func newPair(t *testing.T, seed uint64, shape script.Shape, endpoints ...string) *pair {
	t.Helper()
	p := &pair{t: t, shape: shape, etcd: etcdtest.Start(t).Conn()}
	p.gen = &generator{rand: rand.New(rand.NewPCG(seed, 0)), many: shape != script.OneShard, apart: shape == script.ManyShards}
	for _, e := range endpoints {
		p.sharder = append(p.sharder, connOf(t, e))
	}
	return p
}

// conns are where the next request goes: the etcd, and any of the sharders.
func (p *pair) conns() [2]*grpc.ClientConn {
	return [2]*grpc.ClientConn{p.etcd, one(p.gen, p.sharder)}
}

// differ makes random requests to a fresh etcd and to sharder, compares each reply,
// and at the end what watches over everything saw.
func differ(t *testing.T, n uint64, shape script.Shape, endpoint string) {
	p := newPair(t, n, shape, endpoint)
	var watches [2]pb.Watch_WatchClient
	for i, conn := range p.conns() {
		watches[i] = openWatch(t, pb.NewWatchClient(conn))
	}
	events := 0
	for i := 0; i < steps && !t.Failed(); i++ {
		events += p.step(i)
	}
	if t.Failed() {
		return
	}
	p.same("the end", &pb.RangeRequest{Key: []byte{0}, RangeEnd: []byte{0}})
	compareWatches(t, shape, watches, events)
}

// step makes one request and gives how many events it made.
func (p *pair) step(i int) int {
	p.t.Helper()
	name := "step " + strconv.Itoa(i)
	if p.gen.chance(40) {
		return p.leases(name)
	}
	reply := p.same(name, p.gen.request())
	return eventsOf(reply)
}

// leases grants or revokes one of the leases that requests use, and gives how many
// keys went with it.
func (p *pair) leases(name string) (events int) {
	p.t.Helper()
	id, revoke := p.gen.lease(), p.gen.chance(2)
	ctx := bounded(p.t)
	var errs [2]error
	for i, conn := range p.conns() {
		c := pb.NewLeaseClient(conn)
		if !revoke {
			_, errs[i] = c.LeaseGrant(ctx, &pb.LeaseGrantRequest{ID: id, TTL: 3600})
			continue
		}
		if i == 0 {
			ttl, err := c.LeaseTimeToLive(ctx, &pb.LeaseTimeToLiveRequest{ID: id, Keys: true})
			if err != nil {
				p.t.Fatal(err)
			}
			events = len(ttl.Keys)
		}
		_, errs[i] = c.LeaseRevoke(ctx, &pb.LeaseRevokeRequest{ID: id})
	}
	p.sameError(name, fmt.Sprintf("lease %d, revoke %v", id, revoke), errs)
	return events
}

// same sends one request to both and compares the replies. It gives etcd's, nil if
// that is an error.
func (p *pair) same(name string, req proto.Message) proto.Message {
	p.t.Helper()
	var replies [2]proto.Message
	var errs [2]error
	conns := p.conns()
	if _, ok := req.(*pb.CompactionRequest); ok && p.whole != nil {
		conns[1] = p.whole
	}
	for i, conn := range conns {
		kv := pb.NewKVClient(conn)
		mine := proto.Clone(req)
		p.resolve(kv, mine)
		replies[i], errs[i] = send(bounded(p.t), kv, mine)
	}
	what := short(req)
	if !p.sameError(name, what, errs) {
		p.t.Logf("etcd: %s\nsharder: %s", short(replies[0]), short(replies[1]))
		return nil
	}
	if errs[0] != nil {
		return nil
	}
	a, b := p.normal(replies[0]), p.normal(replies[1])
	if !proto.Equal(a, b) {
		p.t.Errorf("%s: %T %s\netcd: %s\nsharder: %s", name, req, what, short(a), short(b))
	}
	return replies[0]
}

// short is a message on one line, not all of it if it is long.
func short(m proto.Message) string {
	text := prototext.MarshalOptions{}.Format(m)
	if len(text) > 2000 {
		text = text[:2000] + "…"
	}
	return text
}

// sameError tells whether two errors are the same to a client.
func (p *pair) sameError(name, what string, errs [2]error) bool {
	p.t.Helper()
	a, b := status.Convert(errs[0]), status.Convert(errs[1])
	if a.Code() != b.Code() || a.Message() != b.Message() {
		p.t.Errorf("%s: %s\netcd: %v\nsharder: %v", name, what, errs[0], errs[1])
		return false
	}
	return true
}

// bounded is a context for one request.
func bounded(t *testing.T) context.Context {
	ctx, cancel := context.WithTimeout(context.Background(), soon)
	t.Cleanup(cancel)
	return ctx
}

// send makes a request of any kind.
func send(ctx context.Context, kv pb.KVClient, req proto.Message) (proto.Message, error) {
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
	panic("no such request")
}

// resolve turns the revisions in a transaction's compares, which the generator made
// as distances from the key's own, into those of a server.
func (p *pair) resolve(kv pb.KVClient, req proto.Message) {
	txn, ok := req.(*pb.TxnRequest)
	if !ok || p.shape == script.Ordered { // there they are the same on both, and known
		return
	}
	for _, c := range txn.Compare {
		if c.Target != pb.Compare_MOD && c.Target != pb.Compare_CREATE {
			continue
		}
		res, err := kv.Range(bounded(p.t), &pb.RangeRequest{Key: c.Key})
		if err != nil {
			p.t.Fatal(err)
		}
		var mod, create int64
		if len(res.Kvs) == 1 {
			mod, create = res.Kvs[0].ModRevision, res.Kvs[0].CreateRevision
		}
		switch u := c.TargetUnion.(type) {
		case *pb.Compare_ModRevision:
			u.ModRevision += mod
		case *pb.Compare_CreateRevision:
			u.CreateRevision += create
		}
	}
}
