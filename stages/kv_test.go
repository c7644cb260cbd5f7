package stages_test

import (
	"bytes"
	"fmt"
	"slices"
	"strings"
	"testing"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/sharder/sharder/stages"
	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
)

// TestKVOverThreeShards holds the claims about KV over shards, each with its name.
// Several are faults another proxy of this kind has: keys twice, wrong limits,
// counts and orders, transactions that put keys where no read finds them, errors
// whose code is lost, and a process that one bad request ends.
func TestKVOverThreeShards(t *testing.T) {
	f := newFront(t, []string{"a", "b", "c"}, threeRoutes, nil)
	f.run("a range over an empty first shard has every key once", rangeOverEmptyShard)
	f.run("limit, more and count are those of one etcd", limitMoreCount)
	f.run("random ranges are answered as one etcd answers them", randomRanges)
	f.run("ties are sorted and cut as etcd sorts and cuts them", tiedSorts)
	f.run("a merged header names the first shard and the largest revision", mergedHeader)
	f.run("delete range sums up and has every previous value in order", deleteRangeMerges)
	f.run("a txn on one shard is etcd's", txnOnOneShard)
	f.run("a txn over two shards is refused and stores nothing", txnOverTwoShards)
	f.run("what can't be done over shards is refused with its keys and shards", refusals)
	f.run("malformed requests get etcd's answer", malformedRequests)
	f.run("etcd's own errors pass through byte for byte", errorsPassThrough)
	f.run("reserved keys can be neither named nor seen", reservedKeys)
	f.run("a reply of more than 4 MiB arrives", largeReply)
	f.run("the request is not changed by decoding", requestUntouched)
	f.run("a range stream merges to what a range answers", randomStreams)
	f.run("a range stream has header, more and count in its last frame only", lastFrame)
	f.run("a range stream refuses what etcd refuses", streamRefusals)
	f.run("a range stream reads each shard at one revision", streamIsPinned)
}

func rangeOverEmptyShard(t *testing.T, f *front) {
	f.seed("i", "j", "k", "s", "t") // nothing on shard a
	r := must(t)(f.kv.Range(f.ctx(), everything())).(*pb.RangeResponse)
	if got := keysOf(r.Kvs); !slices.Equal(got, []string{"i", "j", "k", "s", "t"}) || r.Count != 5 || r.More {
		t.Fatalf("got %v, count %d, more %v", got, r.Count, r.More)
	}
	// All that is within the limit is on one shard, which alone knows of more.
	req := &pb.RangeRequest{Key: []byte("a"), RangeEnd: []byte("p"), Limit: 2}
	r = must(t)(f.kv.Range(f.ctx(), req)).(*pb.RangeResponse)
	if got := keysOf(r.Kvs); !slices.Equal(got, []string{"i", "j"}) || r.Count != 3 || !r.More {
		t.Fatalf("limit 2: got %v, count %d, more %v", got, r.Count, r.More)
	}
}

func limitMoreCount(t *testing.T, f *front) {
	f.seed("a", "b", "i", "j", "k", "s", "t", "p/1", "p/2", "p/3")
	for limit := int64(0); limit <= 11; limit++ {
		for _, order := range []pb.RangeRequest_SortOrder{pb.RangeRequest_NONE, pb.RangeRequest_ASCEND, pb.RangeRequest_DESCEND} {
			req := everything()
			req.Limit, req.SortOrder = limit, order
			got := must(t)(f.kv.Range(f.ctx(), req)).(*pb.RangeResponse)
			want := must(t)(f.ref.Range(f.ctx(), req)).(*pb.RangeResponse)
			if !slices.Equal(keysOf(got.Kvs), keysOf(want.Kvs)) || got.More != want.More || got.Count != want.Count {
				t.Errorf("limit %d, %v: got %v more %v count %d, etcd %v more %v count %d", limit, order,
					keysOf(got.Kvs), got.More, got.Count, keysOf(want.Kvs), want.More, want.Count)
			}
		}
	}
}

func mergedHeader(t *testing.T, f *front) {
	f.seed("b", "h", "t")
	raw := f.raw()
	head := func(i int) *pb.ResponseHeader {
		return must(t)(raw[i].Range(f.ctx(), everything())).(*pb.RangeResponse).Header
	}
	for head(1).Revision <= max(head(0).Revision, head(2).Revision) { // neither the first nor the last is the largest
		f.seed("h")
	}
	first, want := head(0), head(1).Revision
	got := must(t)(f.kv.Range(f.ctx(), everything())).(*pb.RangeResponse).Header
	if got.ClusterId != first.ClusterId || got.MemberId != first.MemberId || got.RaftTerm != first.RaftTerm || got.Revision != want {
		t.Fatalf("got %v, want %v at revision %d", got, first, want)
	}
	one := must(t)(f.kv.Range(f.ctx(), &pb.RangeRequest{Key: []byte("h")})).(*pb.RangeResponse)
	if own := head(1); one.Header.Revision != own.Revision || one.Header.ClusterId != own.ClusterId {
		t.Fatalf("one shard: got %v, the shard says %v", one.Header, own)
	}
}

func deleteRangeMerges(t *testing.T, f *front) {
	f.seed("b", "i", "p/1", "p/2", "p/3", "p/4", "q", "t", "z")
	req := &pb.DeleteRangeRequest{Key: []byte("b"), RangeEnd: []byte("z"), PrevKv: true}
	got := must(t)(f.kv.DeleteRange(f.ctx(), req)).(*pb.DeleteRangeResponse)
	want := must(t)(f.ref.DeleteRange(f.ctx(), req)).(*pb.DeleteRangeResponse)
	if got.Deleted != want.Deleted || !slices.Equal(keysOf(got.PrevKvs), keysOf(want.PrevKvs)) {
		t.Fatalf("deleted %d %v, etcd %d %v", got.Deleted, keysOf(got.PrevKvs), want.Deleted, keysOf(want.PrevKvs))
	}
	left := must(t)(f.kv.Range(f.ctx(), everything())).(*pb.RangeResponse)
	if got := keysOf(left.Kvs); !slices.Equal(got, []string{"z"}) {
		t.Fatalf("left: %v", got)
	}
}

func putOp(key, value string) *pb.RequestOp {
	return &pb.RequestOp{Request: &pb.RequestOp_RequestPut{RequestPut: &pb.PutRequest{Key: []byte(key), Value: []byte(value)}}}
}

func rangeOp(key, end string) *pb.RequestOp {
	return &pb.RequestOp{Request: &pb.RequestOp_RequestRange{RequestRange: &pb.RangeRequest{Key: []byte(key), RangeEnd: []byte(end)}}}
}

func deleteOp(key, end string) *pb.RequestOp {
	return &pb.RequestOp{Request: &pb.RequestOp_RequestDeleteRange{
		RequestDeleteRange: &pb.DeleteRangeRequest{Key: []byte(key), RangeEnd: []byte(end)}}}
}

func txnOp(t *pb.TxnRequest) *pb.RequestOp {
	return &pb.RequestOp{Request: &pb.RequestOp_RequestTxn{RequestTxn: t}}
}

// exists compares that key, or everything up to end, has a version above 0.
func exists(key, end string) *pb.Compare {
	return &pb.Compare{Key: []byte(key), RangeEnd: []byte(end), Target: pb.Compare_VERSION, Result: pb.Compare_GREATER,
		TargetUnion: &pb.Compare_Version{Version: 0}}
}

func txnOnOneShard(t *testing.T, f *front) {
	f.seed("t", "u", "v", "z")
	for _, req := range []*pb.TxnRequest{
		{},
		{Compare: []*pb.Compare{exists("z", "")}}, // a compare alone, not for the first shard to judge
		{Compare: []*pb.Compare{exists("t", "w")}, Success: []*pb.RequestOp{rangeOp("t", "w")}, Failure: []*pb.RequestOp{putOp("x", "no")}},
		{Compare: []*pb.Compare{exists("y", "")}, Failure: []*pb.RequestOp{putOp("y", "1"), txnOp(&pb.TxnRequest{Success: []*pb.RequestOp{deleteOp("t", "v")}})}},
		{Success: []*pb.RequestOp{rangeOp("s", "\x00")}}, // a range with its end, not its first key alone
	} {
		got := must(t)(f.kv.Txn(f.ctx(), req)).(*pb.TxnResponse)
		want := must(t)(f.ref.Txn(f.ctx(), req)).(*pb.TxnResponse)
		if got.Succeeded != want.Succeeded || summary(got) != summary(want) {
			t.Errorf("%v: got %v %s, etcd %v %s", req, got.Succeeded, summary(got), want.Succeeded, summary(want))
		}
	}
}

// summary is what a Txn answered, without revisions.
func summary(r *pb.TxnResponse) string {
	var b strings.Builder
	for _, op := range r.Responses {
		switch u := op.Response.(type) {
		case *pb.ResponseOp_ResponseRange:
			fmt.Fprintf(&b, "range %v;", keysOf(u.ResponseRange.Kvs))
		case *pb.ResponseOp_ResponseDeleteRange:
			fmt.Fprintf(&b, "deleted %d;", u.ResponseDeleteRange.Deleted)
		case *pb.ResponseOp_ResponseTxn:
			fmt.Fprintf(&b, "(%s);", summary(u.ResponseTxn))
		default:
			fmt.Fprintf(&b, "%T;", u)
		}
	}
	return b.String()
}

const txnAdvice = "; put the keys of one transaction on one shard"

func txnOverTwoShards(t *testing.T, f *front) {
	aAndZ := `sharder: transaction over several shards: "a" is on shard "a", "z" on shard "c"` + txnAdvice
	zAndA := `sharder: transaction over several shards: "z" is on shard "c", "a" on shard "a"` + txnAdvice
	for name, c := range map[string]struct {
		req  *pb.TxnRequest
		text string
	}{
		"two puts":            {&pb.TxnRequest{Success: []*pb.RequestOp{putOp("z", "1"), putOp("a", "1")}}, zAndA},
		"compare and put":     {&pb.TxnRequest{Compare: []*pb.Compare{exists("a", "")}, Success: []*pb.RequestOp{putOp("z", "1")}}, aAndZ},
		"two compares":        {&pb.TxnRequest{Compare: []*pb.Compare{exists("a", ""), exists("z", "")}}, aAndZ},
		"the other branch":    {&pb.TxnRequest{Success: []*pb.RequestOp{putOp("z", "1")}, Failure: []*pb.RequestOp{putOp("a", "1")}}, zAndA},
		"nested":              {&pb.TxnRequest{Success: []*pb.RequestOp{txnOp(&pb.TxnRequest{Failure: []*pb.RequestOp{putOp("z", "")}}), putOp("a", "")}}, zAndA},
		"nested compare":      {&pb.TxnRequest{Success: []*pb.RequestOp{txnOp(&pb.TxnRequest{Compare: []*pb.Compare{exists("z", "")}}), putOp("a", "")}}, zAndA},
		"a range":             {&pb.TxnRequest{Success: []*pb.RequestOp{rangeOp("a", "h")}}, `sharder: transaction over several shards: "a" is on shard "a", "g" on shard "b"` + txnAdvice},
		"a delete":            {&pb.TxnRequest{Failure: []*pb.RequestOp{deleteOp("r", "t")}}, `sharder: transaction over several shards: "r" is on shard "b", "s" on shard "c"` + txnAdvice},
		"a compare's range":   {&pb.TxnRequest{Compare: []*pb.Compare{exists("r", "\x00")}}, `sharder: transaction over several shards: "r" is on shard "b", "s" on shard "c"` + txnAdvice},
		"everything reserved": {&pb.TxnRequest{Success: []*pb.RequestOp{rangeOp("\x00", "\x00")}}, `sharder: transaction over several shards: "\x01" is on shard "a", "g" on shard "b"` + txnAdvice},
	} {
		_, err := f.kv.Txn(f.ctx(), c.req)
		t.Run(name, func(t *testing.T) { wantStatus(t, err, codes.FailedPrecondition, c.text) })
	}
	if n := must(t)(f.kv.Range(f.ctx(), everything())).(*pb.RangeResponse).Count; n != 0 || f.calls.Load() != 3 {
		t.Errorf("%d keys were stored; %d calls", n, f.calls.Load())
	}
}

func refusals(t *testing.T, f *front) {
	req := everything()
	req.Revision = 5
	_, err := f.kv.Range(f.ctx(), req)
	wantStatus(t, err, codes.FailedPrecondition, `sharder: range at revision 5 over several shards: "\x01" is on shard "a", "g" on shard "b"; `+
		`each shard has revisions of its own: read without a revision, or a range that lies on one shard`)
	req.Revision = -1 // none, to etcd
	must(t)(f.kv.Range(f.ctx(), req))

	_, err = f.kv.Compact(f.ctx(), &pb.CompactionRequest{Revision: 1})
	wantStatus(t, err, codes.Unimplemented, "sharder: compact: each shard has revisions of its own, so one revision does not name "+
		"a point in the history of all; compact the shards themselves (etcdctl compact on each, or --auto-compaction-mode)")

	f.seed("t")
	one := must(t)(f.kv.Range(f.ctx(), &pb.RangeRequest{Key: []byte("t")})).(*pb.RangeResponse)
	must(t)(f.kv.Put(f.ctx(), &pb.PutRequest{Key: []byte("t"), Value: []byte("new")}))
	old := must(t)(f.kv.Range(f.ctx(), &pb.RangeRequest{Key: []byte("t"), Revision: one.Header.Revision})).(*pb.RangeResponse)
	if string(old.Kvs[0].Value) != "v-t" {
		t.Errorf("on one shard, a revision reads %q", old.Kvs[0].Value)
	}
}

func reservedKeys(t *testing.T, f *front) {
	for i, kv := range f.raw() {
		must(t)(kv.Put(f.ctx(), &pb.PutRequest{Key: fmt.Appendf(nil, "\x00sharder/%d", i), Value: []byte("mine")}))
	}
	f.seed("\x01", "a", "t")
	key := func(k string) string {
		return fmt.Sprintf("sharder: key %q is reserved: keys that begin with a NUL byte are sharder's own", k)
	}
	span := func(k, end string) string {
		return fmt.Sprintf("sharder: range [%q, %q) holds reserved keys only: keys that begin with a NUL byte are sharder's own", k, end)
	}
	rng := func(k, end string) error {
		_, err := f.kv.Range(f.ctx(), &pb.RangeRequest{Key: []byte(k), RangeEnd: []byte(end)})
		return err
	}
	txn := func(r *pb.TxnRequest) error {
		_, err := f.kv.Txn(f.ctx(), r)
		return err
	}
	_, put := f.kv.Put(f.ctx(), &pb.PutRequest{Key: []byte("\x00x")})
	_, del := f.kv.DeleteRange(f.ctx(), &pb.DeleteRangeRequest{Key: []byte("\x00"), RangeEnd: []byte("\x01")})
	for _, c := range []struct {
		err  error
		text string
	}{
		{put, key("\x00x")},
		{del, span("\x00", "\x01")},
		{rng("\x00", ""), key("\x00")},
		{rng("\x00sharder/", "\x00sharder0"), span("\x00sharder/", "\x00sharder0")},
		{rng("\x00b", "\x00a"), span("\x00b", "\x00a")},
		{txn(&pb.TxnRequest{Compare: []*pb.Compare{exists("\x00sharder/0", "")}}), key("\x00sharder/0")},
		{txn(&pb.TxnRequest{Success: []*pb.RequestOp{txnOp(&pb.TxnRequest{Failure: []*pb.RequestOp{putOp("\x00", "")}})}}), key("\x00")},
	} {
		wantStatus(t, c.err, codes.InvalidArgument, c.text)
	}
	for _, k := range []string{"\x00", "\x00s", "\x00sharder/0"} {
		r := must(t)(f.kv.Range(f.ctx(), &pb.RangeRequest{Key: []byte(k), RangeEnd: []byte{0}})).(*pb.RangeResponse)
		if got := keysOf(r.Kvs); r.Count != 3 || !slices.Equal(got, []string{"\x01", "a", "t"}) {
			t.Errorf("from %q: %q, count %d", k, got, r.Count)
		}
	}
	inTxn := must(t)(f.kv.Txn(f.ctx(), &pb.TxnRequest{Success: []*pb.RequestOp{rangeOp("\x00", "g")}})).(*pb.TxnResponse)
	if got := summary(inTxn); got != "range [\x01 a];" {
		t.Errorf("in a txn: %q", got)
	}
	if r := must(t)(f.kv.DeleteRange(f.ctx(), &pb.DeleteRangeRequest{Key: []byte{0}, RangeEnd: []byte{0}})).(*pb.DeleteRangeResponse); r.Deleted != 3 {
		t.Errorf("deleted %d, want 3", r.Deleted)
	}
	for i, kv := range f.raw() {
		if r := must(t)(kv.Range(f.ctx(), everything())).(*pb.RangeResponse); r.Count != 1 {
			t.Errorf("shard %d has %d keys left, want its own", i, r.Count)
		}
	}
}

func largeReply(t *testing.T, f *front) {
	value := bytes.Repeat([]byte("x"), 1<<20)
	for _, k := range []string{"a", "h", "i", "t", "u", "v"} {
		must(t)(f.kv.Put(f.ctx(), &pb.PutRequest{Key: []byte(k), Value: value}))
	}
	r := must(t)(f.kv.Range(f.ctx(), everything())).(*pb.RangeResponse)
	if len(r.Kvs) != 6 || len(r.Kvs[5].Value) != len(value) {
		t.Fatalf("got %d keys", len(r.Kvs))
	}
}

func errorsPassThrough(t *testing.T, f *front) {
	_, got := f.kv.Put(f.ctx(), &pb.PutRequest{Key: []byte("t"), Lease: 99})
	_, want := f.ref.Put(f.ctx(), &pb.PutRequest{Key: []byte("t"), Lease: 99})
	sameStatus(t, got, want)
	_, got = f.kv.Put(f.ctx(), &pb.PutRequest{Key: []byte("t"), IgnoreValue: true})
	_, want = f.ref.Put(f.ctx(), &pb.PutRequest{Key: []byte("t"), IgnoreValue: true})
	sameStatus(t, got, want)
	_, got = f.kv.Range(f.ctx(), &pb.RangeRequest{Key: []byte("t"), Revision: 1 << 40})
	_, want = f.ref.Range(f.ctx(), &pb.RangeRequest{Key: []byte("t"), Revision: 1 << 40})
	sameStatus(t, got, want)

	shard := f.raw()[2]
	f.seed("t", "t", "t")
	head := must(t)(shard.Range(f.ctx(), &pb.RangeRequest{Key: []byte("t")})).(*pb.RangeResponse).Header.Revision
	must(t)(shard.Compact(f.ctx(), &pb.CompactionRequest{Revision: head}))
	_, got = f.kv.Range(f.ctx(), &pb.RangeRequest{Key: []byte("t"), Revision: 1})
	_, want = shard.Range(f.ctx(), &pb.RangeRequest{Key: []byte("t"), Revision: 1})
	sameStatus(t, got, want)
	if status.Code(got) != codes.OutOfRange {
		t.Fatalf("compacted: %v", got)
	}
}

func requestUntouched(t *testing.T, f *front) {
	d := stages.Decoder{Reserve: true}
	rng, del := everything(), &pb.DeleteRangeRequest{Key: []byte{0}, RangeEnd: []byte{0}}
	txn := &pb.TxnRequest{Compare: []*pb.Compare{exists("\x00", "b")}, Success: []*pb.RequestOp{rangeOp("\x00", "b")}}
	for _, run := range []func() (*stages.Op, error){
		func() (*stages.Op, error) { return d.Range(f.ctx(), rng) },
		func() (*stages.Op, error) { return d.DeleteRange(f.ctx(), del) },
		func() (*stages.Op, error) { return d.Txn(f.ctx(), txn) },
	} {
		op, err := run()
		if err != nil {
			t.Fatal(err)
		}
		if _, err := stages.RouteOp(f.table)(f.ctx(), op); err != nil {
			t.Fatal(err)
		}
	}
	for _, key := range [][]byte{rng.Key, del.Key, txn.Compare[0].Key, txn.Success[0].GetRequestRange().Key} {
		if !bytes.Equal(key, []byte{0}) {
			t.Errorf("a key became %q", key)
		}
	}
}
