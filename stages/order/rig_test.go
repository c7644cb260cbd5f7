package order_test

import (
	"context"
	"fmt"
	"sync"
	"testing"
	"time"

	"github.com/sourcegraph/conc"
	"google.golang.org/grpc"

	"github.com/sharder/sharder/integration/etcdtest"
	"github.com/sharder/sharder/integration/leaks"
	"github.com/sharder/sharder/pipeline"
	"github.com/sharder/sharder/stages"
	"github.com/sharder/sharder/stages/order"
	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	clientv3 "go.etcd.io/etcd/client/v3"
)

func TestMain(m *testing.M) { leaks.Main(m) }

// rig is an order etcd and shards, all real, and what every sharder in front of them has
// in common. Keys that begin with "a" are on shard 0, with "b" on shard 1, and so on.
type rig struct {
	t        testing.TB
	order    *etcdtest.Etcd
	etcds    []*etcdtest.Etcd
	genesis  *order.Genesis
	leases   order.Leases // of all sharders; nil: the same everywhere
	once     sync.Once
	deadline context.Context
}

// newRig starts n shards and stamps them. prepare may use them before.
func newRig(t testing.TB, n int, prepare ...func(r *rig)) *rig {
	return newRigOf(t, nil, n, prepare...)
}

func newRigOf(t testing.TB, opts []etcdtest.Option, n int, prepare ...func(r *rig)) *rig {
	r := &rig{t: t, order: etcdtest.Start(t)}
	for range n {
		r.etcds = append(r.etcds, etcdtest.Start(t, opts...))
	}
	for _, p := range prepare {
		p(r)
	}
	r.genesis = &order.Genesis{Deployment: "00c0ffee00000001", Fingerprint: r.table(nil).Fingerprint()}
	for i, e := range r.etcds {
		put, err := e.Client().Txn(t.Context()).Then(
			clientv3.OpPut(order.RoutesKey, r.genesis.Fingerprint), clientv3.OpPut(stages.ClosedKey, stages.NoneClosed),
		).Commit()
		if err != nil {
			t.Fatal(err)
		}
		r.genesis.Shards = append(r.genesis.Shards, order.GenesisShard{
			Name: name(i), Revision: put.Header.Revision, Internal: []int64{put.Header.Revision}, ClusterID: put.Header.ClusterId,
		})
	}
	return r
}

func name(i int) string { return string(rune('a' + i)) }

// table makes the routes over shards reached by conns (nil: not reached at all).
func (r *rig) table(conns []grpc.ClientConnInterface) *stages.Table {
	var shards []*stages.Shard
	var routes []stages.Route
	for i := range r.etcds {
		s := &stages.Shard{Number: i, Name: name(i), Lane: pipeline.NewLink(64, 1024)}
		if conns != nil {
			s.Conn = conns[i]
		}
		shards = append(shards, s)
		key := []byte(name(i))
		if i == 0 {
			key = nil
		}
		routes = append(routes, stages.Route{Key: key, Shards: []string{name(i)}})
	}
	t, err := stages.NewTable(routes, shards)
	if err != nil {
		r.t.Fatal(err)
	}
	return t
}

// sharder is one sharder in this process, down to the chains of KV.
type sharder struct {
	*order.Order
	table *stages.Table
	rng   pipeline.Stage[*pb.RangeRequest, *pb.RangeResponse]
	put   pipeline.Stage[*pb.PutRequest, *pb.PutResponse]
	del   pipeline.Stage[*pb.DeleteRangeRequest, *pb.DeleteRangeResponse]
	txn   pipeline.Stage[*pb.TxnRequest, *pb.TxnResponse]
	end   func()
}

// sharder starts one. over wraps the connections to the order cluster (-1) and shards.
func (r *rig) sharder(opts func(*order.Options), over ...func(i int, c grpc.ClientConnInterface) grpc.ClientConnInterface) *sharder {
	r.t.Helper()
	wrap := func(i int, c grpc.ClientConnInterface) grpc.ClientConnInterface {
		for _, o := range over {
			c = o(i, c)
		}
		return c
	}
	var conns []grpc.ClientConnInterface
	for i, e := range r.etcds {
		conns = append(conns, wrap(i, etcdtest.Conn(r.t, e.Endpoint)))
	}
	s := &sharder{table: r.table(conns)}
	journal := order.NewEtcd(wrap(-1, etcdtest.Conn(r.t, r.order.Endpoint)))
	if _, err := order.Create(r.t.Context(), journal, r.genesis); err != nil {
		r.t.Fatal(err)
	}
	o := order.Options{
		Journal: journal, Shards: s.table.Shards(), Fingerprint: r.genesis.Fingerprint, Term: journal.Term,
		// An etcd that is merely slow is not to end a transaction. One that has stopped refuses calls at once.
		StepTimeout: 30 * time.Second, FencePatience: time.Second, QueueTimeout: 30 * time.Second,
	}
	if opts != nil {
		opts(&o)
	}
	s.Order = order.New(o)
	if err := s.Load(r.t.Context()); err != nil {
		r.t.Fatal(err)
	}
	s.chains(r.leases)
	ctx, cancel := context.WithCancel(context.Background())
	var wg conc.WaitGroup
	wg.Go(func() { _ = s.Run(ctx) })
	stopped := false
	s.end = func() {
		if !stopped {
			stopped = true
			cancel()
			wg.Wait()
		}
	}
	r.t.Cleanup(s.end)
	return s
}

// chains are those of cmd/sharder without door, leases and watches.
func (s *sharder) chains(l order.Leases) {
	decode := stages.Decoder{Reserve: true, MaxTxnOps: order.MaxTxnOps, MaxRequestBytes: 1536 << 10} // as etcd by default
	read := pipeline.Wrap(stages.CallShard, s.At, stages.Lane)
	write := pipeline.Wrap(stages.CallShard, s.Commit, stages.Lane, s.Guard)
	pinned := pipeline.Chain3(stages.RouteOp(s.table), pipeline.Scatter(read), stages.MergeRange)
	s.rng = pipeline.Chain3(decode.Range, pipeline.Wrap(pinned, s.Pin, stages.RetryWhole), stages.EncodeRange)
	s.put = pipeline.Chain5(decode.Put, stages.RouteOp(s.table), pipeline.Scatter(write), stages.Gather, stages.EncodePut)
	s.Execute(s.table, read, l)
	s.del = pipeline.Chain3(decode.DeleteRange,
		pipeline.Wrap(pipeline.Chain3(stages.RouteOp(s.table), pipeline.Scatter(write), stages.MergeDelete), s.Transact),
		stages.EncodeDeleteRange)
	s.txn = pipeline.Chain3(decode.Txn,
		pipeline.Wrap(pipeline.Chain3(stages.RouteOp(s.table), pipeline.Scatter(write), stages.Gather), s.Transact),
		stages.EncodeTxn)
}

// Put writes a key and gives the answer's revision.
func (r *rig) Put(s *sharder, key, value string) int64 {
	r.t.Helper()
	resp, err := s.put(r.ctx(), &pb.PutRequest{Key: []byte(key), Value: []byte(value)})
	if err != nil {
		r.t.Fatal(err)
	}
	return resp.Header.Revision
}

// Range reads a range and tells it in words: "key=value@create/mod ... at revision".
func (r *rig) Range(s *sharder, key, end string, edit ...func(*pb.RangeRequest)) string {
	r.t.Helper()
	req := &pb.RangeRequest{Key: []byte(key), RangeEnd: []byte(end)}
	for _, e := range edit {
		e(req)
	}
	resp, err := s.rng(r.ctx(), req)
	if err != nil {
		return err.Error()
	}
	var text string
	for _, kv := range resp.Kvs {
		text += fmt.Sprintf("%s=%s@%d/%d ", kv.Key, kv.Value, kv.CreateRevision, kv.ModRevision)
	}
	return fmt.Sprintf("%sat %d", text, resp.Header.Revision)
}

// hourglass is a context whose time is up when a test says so: how long that takes in
// earnest depends on the machine.
type hourglass struct {
	context.Context
	once sync.Once
	up   chan struct{}
}

func (r *rig) hourglass() *hourglass {
	return &hourglass{Context: r.ctx(), up: make(chan struct{})}
}

// expire has the time be up.
func (h *hourglass) expire() { h.once.Do(func() { close(h.up) }) }

func (h *hourglass) Done() <-chan struct{} { return h.up }

func (h *hourglass) Err() error {
	select {
	case <-h.up:
		return context.DeadlineExceeded
	default:
		return nil
	}
}

// ctx bounds a test, from its first use on.
func (r *rig) ctx() context.Context {
	r.once.Do(func() {
		ctx, cancel := context.WithTimeout(context.Background(), 5*time.Minute)
		r.t.Cleanup(cancel)
		r.deadline = ctx
	})
	return r.deadline
}
