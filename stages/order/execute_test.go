package order

import (
	"bytes"
	"context"
	"flag"
	"fmt"
	"math/rand/v2"
	"slices"
	"sync"
	"testing"

	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/encoding/prototext"
	"google.golang.org/protobuf/proto"

	"github.com/sharder/sharder/stages"
	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	"go.etcd.io/etcd/api/v3/mvccpb"
)

var seedOfTxns = flag.Uint64("txns.seed", 0, "repeat TestTxnsOverShardsAreThoseOfOneEtcd with this seed")

// Random Txns over three shards are answered, change the keys, and are watched as they are
// with one etcd that holds all keys: revisions, errors and the order of events included.
func TestTxnsOverShardsAreThoseOfOneEtcd(t *testing.T) {
	t.Parallel()
	seed := *seedOfTxns
	if seed == 0 {
		seed = rand.Uint64()
	}
	t.Logf("-txns.seed=%d repeats this run", seed)
	s := newSplit(t)
	rnd := rand.New(rand.NewPCG(seed, 1))
	r := &txns{Rand: rnd}
	first, kinds := int64(2), map[string]int{}
	for i := range 800 {
		for range rnd.IntN(5) - 2 {
			s.write(&pb.PutRequest{Key: r.key(), Value: []byte{byte('0' + rnd.IntN(4))}})
		}
		if i%200 == 199 {
			s.sameHistory(rnd, first)
			first = s.order.state.revision - 5
			s.compact(first)
		}
		r.revision = s.order.state.revision
		txn := r.make()
		if r.endless && checkWrites(txn) != nil {
			continue // the one etcd might take it, and be the worse for it
		}
		want, wantErr := s.onWhole(txn)
		got, err := s.do(txn)
		kinds[status.Convert(err).Message()]++
		if status.Code(err) != status.Code(wantErr) || status.Convert(err).Message() != status.Convert(wantErr).Message() {
			t.Fatalf("%d: error %v, want %v\n%s", i, err, wantErr, prototext.Format(txn))
		}
		if err == nil && !proto.Equal(got, want) {
			t.Fatalf("%d: got\n%v\nwant\n%v\nfor\n%s", i, got, want, prototext.Format(txn))
		}
		if i%10 == 0 {
			s.sameState()
		}
	}
	s.sameState()
	s.sameHistory(rnd, first)
	t.Logf("how they ended: %v; %d arranged", kinds, len(s.orders))
	if len(kinds) < 5 {
		t.Error("not all errors were met")
	}
}

// sameHistory compares what watches are told, from a revision on: of all, and of random
// parts.
func (s *split) sameHistory(rnd *rand.Rand, from int64) {
	s.t.Helper()
	s.cover()
	to := s.order.state.revision
	want := s.history(s.etcds[3], from, to)
	byRevision := map[int64][]*mvccpb.Event{}
	for n := range s.shards {
		for _, e := range s.history(s.etcds[n], s.order.state.at(n, from-1)+1, s.heads[n]) {
			e.Kv.ModRevision, _ = s.order.state.global(n, e.Kv.ModRevision)
			byRevision[e.Kv.ModRevision] = append(byRevision[e.Kv.ModRevision], e)
		}
	}
	for range 10 {
		key, end := (&txns{Rand: rnd}).span()
		span, some := spanOf(key, end)
		only := mvccpb.Event_EventType(rnd.IntN(4)) // above 1: both
		out := func(e *mvccpb.Event) bool {
			return some && !holds(span, e.Kv.Key) || only <= mvccpb.DELETE && e.Type != only
		}
		part := slices.DeleteFunc(slices.Clone(want), out)
		var got []*mvccpb.Event
		for rev := from; rev <= to; rev++ {
			events := slices.DeleteFunc(slices.Clone(byRevision[rev]), out)
			s.orders[rev].Sort(events)
			got = append(got, events...)
		}
		same := slices.EqualFunc(got, part, func(a, b *mvccpb.Event) bool {
			return a.Type == b.Type && a.Kv.ModRevision == b.Kv.ModRevision && bytes.Equal(a.Kv.Key, b.Kv.Key) && bytes.Equal(a.Kv.Value, b.Kv.Value)
		})
		if !same {
			s.t.Fatalf("the events of [%q, %q) from %d on are\n%v\nwant\n%v", key, end, from, got, part)
		}
	}
}

// Nothing is read that is not needed, and no values where only revisions are compared.
func TestEvaluationReadsWhatItNeeds(t *testing.T) {
	t.Parallel()
	s := newSplit(t)
	for _, key := range []string{"a", "m", "t"} {
		s.write(&pb.PutRequest{Key: []byte(key), Value: []byte("1")})
	}
	s.cover()
	var mu sync.Mutex
	var asked []string
	next := s.exec.call
	e := newExecutor(s.order, s.table, func(ctx context.Context, call stages.Call) (stages.Reply, error) {
		mu.Lock()
		defer mu.Unlock()
		r := call.Request.GetRequestRange()
		asked = append(asked, fmt.Sprintf("%s-%s on %s keys only %v limit %d", r.Key, r.RangeEnd, call.Shard.Name, r.KeysOnly, r.Limit))
		return next(ctx, call)
	})
	value := when("a", "", puts("m"))
	value.Compare = append(value.Compare, &pb.Compare{Key: []byte("a"), Target: pb.Compare_VALUE})
	for _, c := range []struct {
		name   string
		txn    *pb.TxnRequest
		asked  []string
		writes []int
	}{
		{"puts", all(puts("a"), puts("m", func(p *pb.PutRequest) { p.PrevKv = true })), nil, []int{1, 2}},
		{"a compare of a version", when("a", "", puts("a")), []string{"a- on b keys only true limit 0"}, nil},
		{"two compares of one key, one by value", value, []string{"a- on b keys only false limit 0"}, nil},
		{"a delete", all(dels("m", "z")), []string{"m-t on c keys only true limit 1", "t-z on a keys only true limit 1"}, []int{0, 2}},
		{"a delete beside puts", all(dels("m", "z"), puts("l"), txnOp(all(puts("z")))), []string{"m-t on c keys only true limit 1"}, []int{0, 1, 2}},
		{"a delete that finds nothing", all(dels("n", "s"), gets("a", "z")), []string{"n-s on c keys only true limit 1"}, nil},
		{"a put that keeps the value", all(puts("t", func(p *pb.PutRequest) { p.IgnoreValue = true })), []string{"t- on a keys only true limit 0"}, []int{0}},
	} {
		asked = nil
		v, err := e.evaluate(t.Context(), c.txn, s.cut(), nil)
		if err != nil || v.Err != nil {
			t.Fatalf("%s: %v, %v", c.name, v, err)
		}
		slices.Sort(asked)
		if !slices.Equal(asked, c.asked) || !slices.Equal(v.Writes, c.writes) {
			t.Errorf("%s: asked %q, writes on %v", c.name, asked, v.Writes)
		}
	}
}

// Whoever wants the answer to what was decided may come when the history has gone.
func TestAnswerWhoseStateIsCompacted(t *testing.T) {
	t.Parallel()
	s := newSplit(t)
	write := func(key string) { s.write(&pb.PutRequest{Key: []byte(key)}) }
	write("a")
	write("m")
	s.cover()
	at := s.cut()
	txn := all(gets("a", "n"), puts("m"))
	if _, err := s.exec.reply(t.Context(), txn, []bool{true}, at, at.Revision+1, true); err != nil {
		t.Fatal(err)
	}
	write("a")
	s.cover()
	s.compact(s.order.state.revision)
	if _, err := s.exec.reply(t.Context(), txn, []bool{true}, at, at.Revision+1, true); !isOvertaken(err) {
		t.Fatal(err)
	}
}

// What is read at a fence may not be covered yet: it counts as newer than all that is.
func TestCompareOfWhatIsNotCoveredYet(t *testing.T) {
	t.Parallel()
	s := newSplit(t)
	s.write(&pb.PutRequest{Key: []byte("a")}) // revision 2
	s.cover()
	s.write(&pb.PutRequest{Key: []byte("a")})
	s.write(&pb.PutRequest{Key: []byte("m")})
	for _, c := range []struct {
		key    string
		target pb.Compare_CompareTarget
		result pb.Compare_CompareResult
		want   bool
	}{
		{"a", pb.Compare_MOD, pb.Compare_GREATER, true},
		{"a", pb.Compare_MOD, pb.Compare_EQUAL, false},
		{"a", pb.Compare_CREATE, pb.Compare_EQUAL, true},
		{"m", pb.Compare_CREATE, pb.Compare_GREATER, true},
	} {
		compare := &pb.Compare{Key: []byte(c.key), Target: c.target, Result: c.result, TargetUnion: &pb.Compare_ModRevision{ModRevision: 2}}
		if c.target == pb.Compare_CREATE {
			compare.TargetUnion = &pb.Compare_CreateRevision{CreateRevision: 2}
		}
		v, err := s.exec.evaluate(t.Context(), &pb.TxnRequest{Compare: []*pb.Compare{compare}}, s.cut(), nil)
		if err != nil || v.Path[0] != c.want {
			t.Errorf("%v: %+v, %v", compare, v, err)
		}
	}
}
