package lease

import (
	"math"
	"slices"
	"testing"
	"time"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	"go.etcd.io/etcd/api/v3/mvccpb"
)

func TestRepliesShowTheClientsIDsEverywhere(t *testing.T) {
	inBoth(t, func(t *testing.T, w *world) {
		granter, s := w.recovered(), w.recovered() // s has to ask home
		granter.mustGrant(7, 600)
		granter.mustGrant(-8, 600)
		granter.mustPut("b", "k", 7)
		all := opRange(&pb.RangeRequest{Key: []byte{1}, RangeEnd: []byte{0}})
		put := &pb.RequestOp{Request: &pb.RequestOp_RequestPut{RequestPut: &pb.PutRequest{Key: []byte("k"), Lease: -8, PrevKv: true}}}
		del := &pb.RequestOp{Request: &pb.RequestOp_RequestDeleteRange{RequestDeleteRange: &pb.DeleteRangeRequest{Key: []byte("k"), PrevKv: true}}}

		r, err := s.do("b", all)
		if err != nil || r.GetResponseRange().Kvs[0].Lease != 7 || r.GetResponseRange().Count != 1 {
			t.Fatalf("%v, %v", r, err)
		}
		r, err = s.do("b", put)
		if err != nil || r.GetResponsePut().PrevKv.Lease != 7 || r.GetResponsePut().Header == nil {
			t.Fatalf("%v, %v", r, err)
		}
		r, err = s.do("b", opTxn(nil, opRange(&pb.RangeRequest{Key: []byte("x")}), opTxn(nil, all)))
		if err != nil {
			t.Fatal(err)
		}
		txn := r.GetResponseTxn()
		if kv := txn.Responses[1].GetResponseTxn().Responses[0].GetResponseRange().Kvs[0]; kv.Lease != -8 || !txn.Succeeded || txn.Header == nil {
			t.Fatalf("%v", r)
		}
		r, err = s.do("b", del)
		if err != nil || r.GetResponseDeleteRange().PrevKvs[0].Lease != -8 || r.GetResponseDeleteRange().Deleted != 1 {
			t.Fatalf("%v, %v", r, err)
		}
		if put.GetRequestPut().Lease != -8 {
			t.Fatal("the client's request was changed")
		}
	})
}

func TestEventsAreTranslatedInCopiesAndOnlyIfNeeded(t *testing.T) {
	w := startWorld(t, "a") // counts allocations: not beside other tests
	s := w.recovered()
	s.mustGrant(7, 600)
	rec, _ := s.known.lease(7)
	kv := func(lease int64) *mvccpb.KeyValue {
		return &mvccpb.KeyValue{Key: []byte("k"), Value: []byte("v"), CreateRevision: 2, ModRevision: 3, Version: 4, Lease: lease}
	}
	plain := []*mvccpb.Event{{Kv: kv(0)}, {Kv: kv(5), PrevKv: kv(5)}, {Type: mvccpb.Event_DELETE, Kv: kv(0)}}
	if got := s.TranslateEvents(t.Context(), plain); &got[0] != &plain[0] {
		t.Fatal("copied without need")
	}
	least := math.Inf(1) // of several, since the etcds in this process allocate as well
	for range 5 {
		least = min(least, testing.AllocsPerRun(100, func() { s.TranslateEvents(t.Context(), plain) }))
	}
	if least != 0 {
		t.Fatalf("%v allocations", least)
	}
	shared := []*mvccpb.Event{plain[1], {Type: mvccpb.Event_DELETE, Kv: kv(0), PrevKv: kv(rec.shardID)}, {Kv: kv(rec.shardID)}}
	got := s.TranslateEvents(t.Context(), shared)
	if got[0] != shared[0] || got[1].PrevKv.Lease != 7 || got[1].Type != mvccpb.Event_DELETE || got[1].Kv != shared[1].Kv || got[2].Kv.Lease != 7 {
		t.Fatalf("%v", got)
	}
	if shared[1].PrevKv.Lease != rec.shardID || shared[2].Kv.Lease != rec.shardID {
		t.Fatal("shared events were changed")
	}
	if kv := got[2].Kv; string(kv.Key) != "k" || string(kv.Value) != "v" || kv.CreateRevision != 2 || kv.ModRevision != 3 || kv.Version != 4 {
		t.Fatalf("%v", kv)
	}
}

func TestAnAliasOutlivesItsLeaseForAWhile(t *testing.T) {
	w := newWorld(t)
	s := w.recovered()
	s.mustGrant(7, 600)
	s.mustPut("b", "k", 7)
	rec, _ := s.known.lease(7)
	if err := s.revoke(7); err != nil {
		t.Fatal(err)
	}
	deleted := []*mvccpb.Event{{Type: mvccpb.Event_DELETE, PrevKv: &mvccpb.KeyValue{Lease: rec.shardID}}}
	later, stop := w.running(func(o *Options) { o.SweepEvery = 100 * time.Millisecond })
	if got := later.TranslateEvents(t.Context(), deleted); got[0].PrevKv.Lease != 7 {
		t.Fatalf("%v", got)
	}
	stop()
	w.recovered(func(o *Options) { o.AliasRetention = time.Nanosecond }).sweepTwice()
	forgetful := w.recovered()
	if got := forgetful.TranslateEvents(t.Context(), deleted); got[0].PrevKv.Lease != rec.shardID {
		t.Fatalf("alias still there: %v", got)
	}
}

func (s *sharder) sweepTwice() {
	for range 2 {
		if err := s.sweep(s.t.Context(), s.o.Shards); err != nil {
			s.t.Fatal(err)
		}
	}
}

func TestManyAliasesAreReadTogether(t *testing.T) {
	w := newWorld(t)
	granter, s := w.recovered(), w.recovered()
	var kvs []*mvccpb.KeyValue
	for id := range int64(150) {
		granter.mustGrant(id+1, 600)
		rec, _ := granter.known.lease(id + 1)
		kvs = append(kvs, &mvccpb.KeyValue{Lease: rec.shardID})
	}
	before := s.taps[w.home].count(pb.KV_Txn_FullMethodName)
	got, err := s.TranslateKV(t.Context(), slices.Concat(kvs, kvs))
	if err != nil || got[0].Lease != 1 || got[149].Lease != 150 || got[299].Lease != 150 {
		t.Fatalf("%v, %v", got, err)
	}
	if n := s.taps[w.home].count(pb.KV_Txn_FullMethodName) - before; n != 2 {
		t.Fatalf("%d reads", n)
	}
}

func TestTranslationOfEventsWaitsForHome(t *testing.T) {
	w := newWorld(t)
	granter, s := w.recovered(), w.recovered()
	granter.mustGrant(7, 600)
	rec, _ := granter.known.lease(7)
	w.etcds[w.home].Stop()
	events := []*mvccpb.Event{{Kv: &mvccpb.KeyValue{Lease: rec.shardID}}}
	if _, err := s.TranslateKV(t.Context(), []*mvccpb.KeyValue{events[0].Kv}); err == nil {
		t.Fatal("translated without home")
	}
	done := make(chan []*mvccpb.Event, 1)
	go func() { done <- s.TranslateEvents(t.Context(), events) }()
	w.etcds[w.home].Restart()
	if got := <-done; got[0].Kv.Lease != 7 {
		t.Fatalf("%v", got)
	}
}
