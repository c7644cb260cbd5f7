package order

import (
	"context"
	"slices"
	"strings"
	"testing"

	"google.golang.org/protobuf/proto"

	"github.com/sharder/sharder/integration/etcdtest"
	"github.com/sharder/sharder/pipeline"
	"github.com/sharder/sharder/stages"
	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	"go.etcd.io/etcd/api/v3/mvccpb"
)

// split is three shards and one etcd that holds all that they hold, all real. What is done
// is done on both sides; a made-up log gives the shards' revisions the numbers that the one
// etcd gave out.
type split struct {
	t      *testing.T
	whole  pb.KVClient
	shards []pb.KVClient
	table  *stages.Table
	order  *Order
	exec   *executor
	heads  []int64                // by shard, its newest revision
	late   [][2]int64             // shard and its revision, of what is not covered yet
	orders map[int64]*Arrangement // by revision
	etcds  []*etcdtest.Etcd       // the shards, and the one
}

// leaseShift is how far a lease's id on the shards is from the one that clients know.
const leaseShift = 1000

// leases are those that there are.
var leases = []int64{1, 2, 3}

func newSplit(t *testing.T) *split {
	s := &split{t: t, heads: []int64{1, 1, 1}, orders: map[int64]*Arrangement{}}
	var all []*stages.Shard
	g := &Genesis{Deployment: "00c0ffee00000001"}
	for i, name := range []string{"a", "b", "c"} {
		e := s.start(leaseShift)
		all = append(all, &stages.Shard{Number: i, Name: name, Conn: e.Conn(), Lane: pipeline.NewLink(64, 1024)})
		s.shards = append(s.shards, pb.NewKVClient(e.Conn()))
		g.Shards = append(g.Shards, GenesisShard{Name: name, Revision: 1})
	}
	s.whole = pb.NewKVClient(s.start(0).Conn())
	var err error
	if s.table, err = stages.NewTable([]stages.Route{
		{Shards: []string{"b"}},
		{Key: []byte("h/"), Shards: []string{"a", "b", "c"}, Hash: true},
		{Key: []byte("m"), Shards: []string{"c"}},
		{Key: []byte("t"), Shards: []string{"a"}},
	}, all); err != nil {
		t.Fatal(err)
	}
	s.order = New(Options{Shards: all})
	s.order.state, s.order.clusters = &state{}, make([]uint64, len(all))
	if err := s.order.state.replay(1, Entry{Genesis: g}); err != nil {
		t.Fatal(err)
	}
	s.exec = newExecutor(s.order, s.table, pipeline.Wrap(stages.CallShard, s.order.At, clientLeases))
	return s
}

// start starts an etcd with the leases.
func (s *split) start(shift int64) *etcdtest.Etcd {
	e := etcdtest.Start(s.t)
	s.etcds = append(s.etcds, e)
	for _, id := range leases {
		if _, err := pb.NewLeaseClient(e.Conn()).LeaseGrant(s.t.Context(), &pb.LeaseGrantRequest{ID: id + shift, TTL: 3600}); err != nil {
			s.t.Fatal(err)
		}
	}
	return e
}

// clientLeases gives what a shard answers the leases of clients.
func clientLeases(next pipeline.Stage[stages.Call, stages.Reply]) pipeline.Stage[stages.Call, stages.Reply] {
	return func(ctx context.Context, call stages.Call) (stages.Reply, error) {
		reply, err := next(ctx, call)
		for _, kv := range reply.Response.GetResponseRange().GetKvs() {
			if kv.Lease != 0 {
				kv.Lease -= leaseShift
			}
		}
		return reply, err
	}
}

// onWhole does a Txn on the one etcd. Headers are left with what is compared of them.
func (s *split) onWhole(txn *pb.TxnRequest) (*pb.TxnResponse, error) {
	resp, err := s.whole.Txn(s.t.Context(), txn)
	if err == nil {
		resp.Header = &pb.ResponseHeader{Revision: resp.Header.Revision}
	}
	return resp, err
}

// apply does on a shard what it is sent of a Txn, and tells whether that made a revision.
func (s *split) apply(shard int, ops []*pb.RequestOp) bool {
	s.t.Helper()
	if len(ops) == 0 {
		return false
	}
	resp, err := s.shards[shard].Txn(s.t.Context(), &pb.TxnRequest{Success: ops})
	if err != nil {
		s.t.Fatalf("shard %d: %v\n%v", shard, err, ops)
	}
	moved := resp.Header.Revision > s.heads[shard]
	s.heads[shard] = resp.Header.Revision
	return moved
}

// write is an ordinary Put, which is not covered yet.
func (s *split) write(p *pb.PutRequest) {
	s.t.Helper()
	op := &pb.RequestOp{Request: &pb.RequestOp_RequestPut{RequestPut: p}}
	if _, err := s.onWhole(&pb.TxnRequest{Success: []*pb.RequestOp{op}}); err != nil {
		s.t.Fatal(err)
	}
	n := s.table.Lookup(p.Key).Number
	s.apply(n, []*pb.RequestOp{op})
	s.late = append(s.late, [2]int64{int64(n), s.heads[n]})
}

// cover numbers what is not covered yet.
func (s *split) cover() {
	for _, l := range s.late {
		s.number(s.order.state.revision+1, int(l[0]))
	}
	s.late = nil
}

// number gives the newest revisions of some shards one number.
func (s *split) number(global int64, shards ...int) {
	s.order.mu.Lock()
	defer s.order.mu.Unlock()
	st := s.order.state
	for _, n := range shards {
		st.maps[n] = st.maps[n].add(st.covered[n]+1, 1, global)
		st.covered[n]++
	}
	st.revision = global
}

// cut is where the shards are now, covered or not.
func (s *split) cut() stages.Cut {
	cut := s.order.Replayed()
	cut.At = slices.Clone(s.heads)
	return cut
}

// do does a Txn over the shards and gives the answer for its client.
func (s *split) do(txn *pb.TxnRequest) (*pb.TxnResponse, error) {
	s.t.Helper()
	if err := checkWrites(txn); err != nil {
		return nil, err
	}
	revision := s.order.state.revision
	if mentions(txn, func(rev int64) bool { return rev > revision && rev < forever }) {
		s.cover()
	}
	v, err := s.exec.evaluate(s.t.Context(), txn, s.cut(), func(id int64) bool { return slices.Contains(leases, id) })
	s.cover()
	if err != nil || v.Err != nil {
		return nil, cmpErr(err, v)
	}
	at := s.cut() // its revision is known by now
	at.At = slices.Clone(s.heads)
	g := at.Revision
	if len(v.Writes) > 0 {
		g++
		s.orders[g] = v.Order
	}
	var wrote []int
	for n := range s.shards {
		if s.apply(n, shardOps(s.table, txn, v.Path, n, func(id int64) int64 { return id + leaseShift })) {
			wrote = append(wrote, n)
		}
	}
	if !slices.Equal(wrote, v.Writes) {
		s.t.Fatalf("it wrote on shards %v, not %v", wrote, v.Writes)
	}
	if len(wrote) > 0 {
		s.number(g, wrote...)
	}
	resp, err := s.exec.reply(s.t.Context(), txn, v.Path, at, g, len(v.Writes) > 0)
	if err == nil {
		resp.Header = &pb.ResponseHeader{Revision: resp.Header.Revision}
	}
	return resp, err
}

func cmpErr(err error, v *verdict) error {
	if err != nil {
		return err
	}
	return v.Err
}

// compact compacts both sides.
func (s *split) compact(global int64) {
	s.t.Helper()
	s.cover()
	if _, err := s.whole.Compact(s.t.Context(), &pb.CompactionRequest{Revision: global}); err != nil {
		s.t.Fatal(err)
	}
	for n, rev := range s.order.state.vector(global) {
		_, err := s.shards[n].Compact(s.t.Context(), &pb.CompactionRequest{Revision: rev})
		if err != nil && !strings.Contains(err.Error(), "compacted") {
			s.t.Fatal(err)
		}
	}
	s.order.mu.Lock()
	defer s.order.mu.Unlock()
	s.order.state.compacted = global
}

// sameState compares all that there is on both sides.
func (s *split) sameState() {
	s.t.Helper()
	s.cover()
	all := &pb.RangeRequest{Key: []byte{1}, RangeEnd: []byte{0}}
	want, err := s.whole.Range(s.t.Context(), all)
	if err != nil {
		s.t.Fatal(err)
	}
	got, err := s.exec.rangeAt(s.t.Context(), all, s.cut())
	if err != nil {
		s.t.Fatal(err)
	}
	if want.Header.Revision != s.order.state.revision {
		s.t.Fatalf("at revision %d, want %d", s.order.state.revision, want.Header.Revision)
	}
	got.Header, want.Header = nil, nil
	if !proto.Equal(got, want) {
		s.t.Fatalf("the shards hold\n%v\nwant\n%v", got, want)
	}
}

// history are all events of one etcd from a revision on.
func (s *split) history(e *etcdtest.Etcd, from, to int64) (events []*mvccpb.Event) {
	s.t.Helper()
	ctx, cancel := context.WithCancel(s.t.Context())
	defer cancel()
	w, err := pb.NewWatchClient(e.Conn()).Watch(ctx)
	if err != nil {
		s.t.Fatal(err)
	}
	if err := w.Send(&pb.WatchRequest{RequestUnion: &pb.WatchRequest_CreateRequest{CreateRequest: &pb.WatchCreateRequest{
		Key: []byte{1}, RangeEnd: []byte{0}, StartRevision: from,
	}}}); err != nil {
		s.t.Fatal(err)
	}
	for from <= to {
		resp, err := w.Recv()
		if err != nil || resp.Canceled {
			s.t.Fatalf("watch: %v, %v", resp, err)
		}
		events = append(events, resp.Events...)
		if n := len(events); n > 0 {
			from = events[n-1].Kv.ModRevision + 1
		}
	}
	return events
}
