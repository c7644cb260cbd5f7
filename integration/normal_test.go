package integration

import (
	"sort"
	"testing"
	"time"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	"go.etcd.io/etcd/api/v3/mvccpb"
	"google.golang.org/protobuf/proto"

	"github.com/sharder/sharder/integration/script"
)

// normal is a reply without what two servers can't have in common: who answered,
// and, over several shards, the revisions.
func (p *pair) normal(reply proto.Message) proto.Message {
	reply = proto.Clone(reply)
	n := normalizer{revisions: p.shape != script.ManyShards}
	switch r := reply.(type) {
	case *pb.RangeResponse:
		n.get(r)
	case *pb.PutResponse:
		n.put(r)
	case *pb.DeleteRangeResponse:
		n.del(r)
	case *pb.TxnResponse:
		n.txn(r)
	case *pb.CompactionResponse:
		n.header(r.Header)
	}
	return reply
}

// normalizer takes the server out of replies.
type normalizer struct{ revisions bool } // keep revisions

func (n normalizer) header(h *pb.ResponseHeader) {
	if h == nil {
		return
	}
	h.ClusterId, h.MemberId, h.RaftTerm = 0, 0, 0
	if !n.revisions {
		h.Revision = 0
	}
}

func (n normalizer) kv(kvs ...*mvccpb.KeyValue) {
	for _, kv := range kvs {
		if kv != nil && !n.revisions {
			kv.CreateRevision, kv.ModRevision = 0, 0
		}
	}
}

func (n normalizer) get(r *pb.RangeResponse)       { n.header(r.Header); n.kv(r.Kvs...) }
func (n normalizer) put(r *pb.PutResponse)         { n.header(r.Header); n.kv(r.PrevKv) }
func (n normalizer) del(r *pb.DeleteRangeResponse) { n.header(r.Header); n.kv(r.PrevKvs...) }

func (n normalizer) txn(r *pb.TxnResponse) {
	n.header(r.Header)
	for _, op := range r.Responses {
		switch o := op.Response.(type) {
		case *pb.ResponseOp_ResponseRange:
			n.get(o.ResponseRange)
		case *pb.ResponseOp_ResponsePut:
			n.put(o.ResponsePut)
		case *pb.ResponseOp_ResponseDeleteRange:
			n.del(o.ResponseDeleteRange)
		case *pb.ResponseOp_ResponseTxn:
			n.txn(o.ResponseTxn)
		}
	}
}

// eventsOf is how many events a reply's request made.
func eventsOf(reply proto.Message) int {
	switch r := reply.(type) {
	case *pb.PutResponse:
		return 1
	case *pb.DeleteRangeResponse:
		return int(r.Deleted)
	case *pb.TxnResponse:
		n := 0
		for _, op := range r.Responses {
			switch o := op.Response.(type) {
			case *pb.ResponseOp_ResponsePut:
				n++
			case *pb.ResponseOp_ResponseDeleteRange:
				n += int(o.ResponseDeleteRange.Deleted)
			case *pb.ResponseOp_ResponseTxn:
				n += eventsOf(o.ResponseTxn)
			}
		}
		return n
	}
	return 0
}

// compareWatches takes what both watches saw and compares it: with one shard event
// by event, with several key by key.
func compareWatches(t *testing.T, shape script.Shape, watches [2]pb.Watch_WatchClient, want int) {
	t.Helper()
	n := normalizer{revisions: shape != script.ManyShards}
	var seen [2][]*mvccpb.Event
	for i, w := range watches {
		for len(seen[i]) < want {
			r := recvWithin(t, w, soon)
			for _, ev := range r.Events {
				n.kv(ev.Kv)
				seen[i] = append(seen[i], ev)
			}
		}
		if shape == script.ManyShards {
			sort.SliceStable(seen[i], func(a, b int) bool { return string(seen[i][a].Kv.Key) < string(seen[i][b].Kv.Key) })
		}
	}
	if len(seen[0]) != want || len(seen[1]) != want {
		t.Fatalf("%d events on etcd, %d on sharder, %d were made", len(seen[0]), len(seen[1]), want)
	}
	for i := range seen[0] {
		if !proto.Equal(seen[0][i], seen[1][i]) {
			t.Fatalf("event %d: etcd %v, sharder %v", i, seen[0][i], seen[1][i])
		}
	}
}

// recvWithin takes the next response of a watch, or fails the test.
func recvWithin(t *testing.T, w pb.Watch_WatchClient, bound time.Duration) *pb.WatchResponse {
	t.Helper()
	type result struct {
		r   *pb.WatchResponse
		err error
	}
	got := make(chan result, 1)
	go func() {
		r, err := w.Recv()
		got <- result{r, err}
	}()
	select {
	case res := <-got:
		if res.err != nil {
			t.Fatalf("watch: %v", res.err)
		}
		return res.r
	case <-time.After(bound):
		t.Fatalf("nothing on the watch within %v", bound)
		return nil
	}
}
