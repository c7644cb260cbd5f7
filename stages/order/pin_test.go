package order_test

import (
	"context"
	"errors"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"
)

func text(err error) string { return status.Convert(err).Message() }

// C4: a read of the past has the present in its header, and every sharder knows of a
// compaction that was acknowledged, also on shards that did not move.
func TestReadsOfThePast(t *testing.T) {
	t.Parallel()
	r := newRig(t, 3)
	s1, s2 := r.sharder(nil), r.sharder(nil)
	r.Put(s1, "a", "1")
	r.Put(s1, "b", "1")
	last := r.Put(s1, "a", "2")
	at := func(rev int64) func(*pb.RangeRequest) { return func(q *pb.RangeRequest) { q.Revision = rev } }
	if got := r.Range(s2, "a", "z", at(3)); got != "a=1@2/2 b=1@3/3 at 4" {
		t.Fatal(got)
	}
	resp, err := s1.Compact(r.ctx(), &pb.CompactionRequest{Revision: last, Physical: true})
	if err != nil || resp.Header.Revision != last {
		t.Fatal(resp, err)
	}
	for _, key := range []string{"a", "b", "c"} {
		_, err := s2.rng(r.ctx(), &pb.RangeRequest{Key: []byte(key), Revision: 3})
		if text(err) != text(rpctypes.ErrGRPCCompacted) {
			t.Fatalf("%s at a compacted revision: %v", key, err)
		}
	}
	if got := r.Range(s2, "a", "z", at(last)); got != "a=2@2/4 b=1@3/3 at 4" {
		t.Fatal(got)
	}
	for rev, want := range map[int64]error{last: rpctypes.ErrGRPCCompacted, 2: rpctypes.ErrGRPCCompacted, last + 1: rpctypes.ErrGRPCFutureRev} {
		if _, err := s2.Compact(r.ctx(), &pb.CompactionRequest{Revision: rev}); text(err) != text(want) {
			t.Fatalf("compact at %d: %v, want %v", rev, err, want)
		}
	}
}

// A6: a compaction that overtakes a read of now costs it another round, not an error.
func TestCompactionAtTheNewestRevisionLeavesThatReadable(t *testing.T) {
	t.Parallel()
	r := newRig(t, 2)
	s := r.sharder(nil)
	at := r.Put(s, "a", "1") // shard b has nothing but its stamp, which has no number
	if _, err := s.Compact(r.ctx(), &pb.CompactionRequest{Revision: at, Physical: true}); err != nil {
		t.Fatal(err)
	}
	r.Put(s, "a", "2")
	if got, want := r.Range(s, "a", "z", func(q *pb.RangeRequest) { q.Revision = at }), "a=1@2/2 at 3"; got != want {
		t.Fatalf("got %s, want %s", got, want)
	}
}

func TestCompactionOvertakesARead(t *testing.T) {
	t.Parallel()
	r := newRig(t, 2)
	w := &wire{}
	s, other := r.sharder(nil, onShard(0, w)), r.sharder(nil)
	r.Put(s, "a", "1")
	var done atomic.Bool
	w.set(func(_ context.Context, method string, args any) error {
		q, ok := args.(*pb.RangeRequest)
		if ok && string(q.Key) == "a" && done.CompareAndSwap(false, true) {
			last := r.Put(other, "a", "2")
			if _, err := other.Compact(r.ctx(), &pb.CompactionRequest{Revision: last, Physical: true}); err != nil {
				t.Error(err)
			}
		}
		return nil
	})
	if got := r.Range(s, "a", "c"); got != "a=2@2/3 at 3" {
		t.Fatalf("got %s", got)
	}
	if !done.Load() {
		t.Fatal("nothing overtook anything")
	}
}

// On a quiet log the shard is asked before the position is known; what it says counts
// only if nothing came into the log meanwhile.
func TestReadOfAQuietLogWaitsOnceAndIsOfNow(t *testing.T) {
	t.Parallel()
	for want, writes := range map[string]int{"a=1@2/2 at 2": 0, "a=2@2/3 at 3": 1} {
		r := newRig(t, 2)
		shard, log := &wire{}, &wire{}
		s, other := r.sharder(nil, onShard(0, shard), onShard(-1, log)), r.sharder(nil)
		r.Put(s, "a", "1")
		time.Sleep(50 * time.Millisecond) // for the log to be quiet
		asked := make(chan struct{})
		var reads atomic.Int64
		shard.set(func(_ context.Context, _ string, args any) error {
			if q, ok := args.(*pb.RangeRequest); ok && string(q.Key) == "a" && reads.Add(1) == 1 {
				defer close(asked)
				if writes > 0 {
					r.Put(other, "a", "2") // acknowledged before the log is read
				}
			}
			return nil
		})
		log.set(func(ctx context.Context, _ string, args any) error {
			if _, ok := args.(*pb.RangeRequest); ok {
				select {
				case <-asked:
				case <-ctx.Done():
					return errors.New("the shard is not asked before the log is read")
				}
			}
			return nil
		})
		if got := r.Range(s, "a", ""); got != want {
			t.Errorf("got %s, want %s", got, want)
		}
		if n := reads.Load(); n != int64(1+writes) {
			t.Errorf("the shard was read %d times, with %d writes meanwhile", n, writes)
		}
	}
}

// P5: a member that does not have the revision yet is not the end: another one is asked,
// and the shard's quorum in the end.
func TestMemberThatLagsIsNotTheLastWord(t *testing.T) {
	t.Parallel()
	r := newRig(t, 1)
	w := &wire{}
	s := r.sharder(nil, onShard(0, w))
	r.Put(s, "a", "1")
	var serial, all atomic.Int64
	w.set(func(_ context.Context, method string, args any) error {
		q, ok := args.(*pb.RangeRequest)
		if !ok || string(q.Key) != "a" {
			return nil
		}
		all.Add(1)
		if q.Serializable {
			serial.Add(1)
			return rpctypes.ErrGRPCFutureRev
		}
		return nil
	})
	if got := r.Range(s, "a", ""); got != "a=1@2/2 at 2" {
		t.Fatal(got)
	}
	if serial.Load() < 2 || all.Load() != serial.Load()+1 {
		t.Fatalf("%d serializable reads of %d", serial.Load(), all.Load())
	}
}

// C9: a shard that does not have what is in the log went back in time.
func TestShardThatLostItsRevisionIsRefused(t *testing.T) {
	t.Parallel()
	r := newRig(t, 2)
	w := &wire{}
	s := r.sharder(nil, onShard(0, w))
	r.Put(s, "a", "1")
	w.set(func(_ context.Context, _ string, args any) error {
		if q, ok := args.(*pb.RangeRequest); ok && string(q.Key) == "a" {
			return rpctypes.ErrGRPCFutureRev
		}
		return nil
	})
	if got := r.Range(s, "a", ""); !strings.Contains(got, "shard a went back in time") {
		t.Fatal(got)
	}
	w.set(nil)
	if _, err := s.put(r.ctx(), &pb.PutRequest{Key: []byte("a")}); status.Code(err) != codes.DataLoss {
		t.Fatalf("a write to a shard that went back in time: %v", err)
	}
	r.Put(s, "b", "1") // the others go on
}

// C11: a compare over a range is about the range, not about each shard's part of it.
func TestCompareOverARangeIsOneCompare(t *testing.T) {
	t.Parallel()
	r := newRig(t, 3)
	s := r.sharder(nil)
	r.Put(s, "a", "1")
	last := r.Put(s, "b", "1") // c has nothing
	over := func(c *pb.Compare) *pb.TxnResponse {
		c.Key, c.RangeEnd = []byte("a"), []byte("z")
		return r.doTxn(s, &pb.TxnRequest{Compare: []*pb.Compare{c}, Success: []*pb.RequestOp{rangeOp("a", "z")}, Failure: []*pb.RequestOp{rangeOp("c", "")}})
	}
	created := over(&pb.Compare{Target: pb.Compare_CREATE, Result: pb.Compare_GREATER, TargetUnion: &pb.Compare_CreateRevision{}})
	if !created.Succeeded || created.Header.Revision != last || len(created.Responses[0].GetResponseRange().Kvs) != 2 {
		t.Fatalf("create > 0: %v", created)
	}
	if got := over(&pb.Compare{Target: pb.Compare_VALUE, Result: pb.Compare_EQUAL, TargetUnion: &pb.Compare_Value{Value: []byte("1")}}); !got.Succeeded {
		t.Fatalf("value = 1: %v", got)
	}
	if got := over(&pb.Compare{Target: pb.Compare_MOD, Result: pb.Compare_GREATER, TargetUnion: &pb.Compare_ModRevision{ModRevision: 2}}); got.Succeeded {
		t.Fatalf("mod > 2: %v", got)
	}
}

// Filters by revision mean global revisions, on every shard and also when none of a
// shard's is as old.
func TestFiltersByRevision(t *testing.T) {
	t.Parallel()
	r := newRig(t, 2)
	s := r.sharder(nil)
	r.Put(s, "a1", "1") // 2
	r.Put(s, "b1", "1") // 3
	r.Put(s, "a2", "1") // 4
	r.Put(s, "b1", "2") // 5
	for want, edit := range map[string]func(*pb.RangeRequest){
		"a2=1@4/4 b1=2@3/5 at 5":          func(q *pb.RangeRequest) { q.MinModRevision = 3 },
		"a1=1@2/2 at 5":                   func(q *pb.RangeRequest) { q.MaxModRevision = 3 },
		"a1=1@2/2 b1=2@3/5 at 5":          func(q *pb.RangeRequest) { q.MaxCreateRevision = 3 },
		"b1=2@3/5 at 5":                   func(q *pb.RangeRequest) { q.MinCreateRevision, q.MaxCreateRevision = 3, 3 },
		"at 5":                            func(q *pb.RangeRequest) { q.MinModRevision = 6 },
		"a1=1@2/2 a2=1@4/4 b1=2@3/5 at 5": func(q *pb.RangeRequest) { q.MaxModRevision = 1 << 62 },
		"a1=1@2/2 b1=2@3/5 a2=1@4/4 at 5": func(q *pb.RangeRequest) { q.SortTarget, q.SortOrder = pb.RangeRequest_CREATE, pb.RangeRequest_ASCEND },
		"b1=2@3/5 a2=1@4/4 at 5": func(q *pb.RangeRequest) {
			q.SortTarget, q.SortOrder, q.Limit = pb.RangeRequest_MOD, pb.RangeRequest_DESCEND, 2
		},
	} {
		if got := r.Range(s, "a", "c", edit); got != want {
			t.Errorf("got %s, want %s", got, want)
		}
	}
}
