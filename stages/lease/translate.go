package lease

import (
	"context"
	"time"

	"github.com/sharder/sharder/stages"
	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	"go.etcd.io/etcd/api/v3/mvccpb"
)

// TranslateKV gives the kvs with the lease ids that clients know. With nothing to
// translate, which a look at the signs tells, it gives back the slice it got;
// otherwise copies, and what it got stays as it is. It fails if home has to be asked
// for an alias and can't be.
func (m *Manager) TranslateKV(ctx context.Context, kvs []*mvccpb.KeyValue) ([]*mvccpb.KeyValue, error) {
	var ids []int64
	for _, kv := range kvs {
		ids = aliased(ids, kv)
	}
	if ids == nil {
		return kvs, nil
	}
	clients, err := m.clientIDs(ctx, ids)
	if err != nil {
		return nil, err
	}
	out := make([]*mvccpb.KeyValue, len(kvs))
	for i, kv := range kvs {
		out[i] = withClientID(kv, clients)
	}
	return out, nil
}

// TranslateEvents is TranslateKV for events, kv and prev_kv. If home can't be asked
// it tries until it can, or until ctx is done; only then events may come back
// with an id that clients don't know. Shared events are safe: it changes none.
func (m *Manager) TranslateEvents(ctx context.Context, events []*mvccpb.Event) []*mvccpb.Event {
	var ids []int64
	for _, e := range events {
		ids = aliased(ids, e.Kv)
		ids = aliased(ids, e.PrevKv)
	}
	if ids == nil {
		return events
	}
	clients, err := m.clientIDs(ctx, ids)
	for delay := 20 * time.Millisecond; err != nil; delay = min(2*delay, time.Second) {
		if !sleep(ctx, delay) {
			return events
		}
		clients, err = m.clientIDs(ctx, ids)
	}
	out := make([]*mvccpb.Event, len(events))
	for i, e := range events {
		out[i] = e
		kv, prev := withClientID(e.Kv, clients), withClientID(e.PrevKv, clients)
		if kv != e.Kv || prev != e.PrevKv {
			out[i] = &mvccpb.Event{Type: e.Type, Kv: kv, PrevKv: prev}
		}
	}
	return out
}

// aliased collects the id of a kv's lease if it may stand for another.
func aliased(ids []int64, kv *mvccpb.KeyValue) []int64 {
	if kv != nil && kv.Lease < 0 {
		ids = append(ids, kv.Lease)
	}
	return ids
}

// withClientID gives kv with the client's id, as a copy if that is another one.
func withClientID(kv *mvccpb.KeyValue, clients map[int64]int64) *mvccpb.KeyValue {
	if kv == nil || kv.Lease >= 0 || clients[kv.Lease] == kv.Lease {
		return kv
	}
	return &mvccpb.KeyValue{Key: kv.Key, Value: kv.Value, CreateRevision: kv.CreateRevision,
		ModRevision: kv.ModRevision, Version: kv.Version, Lease: clients[kv.Lease]}
}

// aliasesPerRead is how many alias records one Txn at home reads; etcd allows 128
// operations.
const aliasesPerRead = 100

// clientIDs translates shard ids. One without an alias record means itself: it is a
// shard's own lease with a negative id, or its lease has been gone for longer than
// aliases are kept.
func (m *Manager) clientIDs(ctx context.Context, ids []int64) (map[int64]int64, error) {
	out := make(map[int64]int64, len(ids))
	var missing []int64
	for _, id := range ids {
		if _, done := out[id]; done {
			continue
		}
		client, ok := m.known.aliases.get(id)
		if !ok {
			client = id
			missing = append(missing, id)
		}
		out[id] = client
	}
	for len(missing) > 0 {
		n := min(len(missing), aliasesPerRead)
		if err := m.readAliases(ctx, missing[:n], out); err != nil {
			return nil, err
		}
		missing = missing[n:]
	}
	return out, nil
}

func (m *Manager) readAliases(ctx context.Context, ids []int64, out map[int64]int64) error {
	t := &pb.TxnRequest{}
	for _, id := range ids {
		t.Success = append(t.Success, opRange(&pb.RangeRequest{Key: aliasKey(id)}))
	}
	r, err := m.home.rawTxn(ctx, t)
	if err != nil {
		return err
	}
	for _, rr := range r.Responses {
		for _, kv := range rr.GetResponseRange().GetKvs() {
			if shardID, client, ok := parseAlias(kv); ok {
				out[shardID] = client
			}
		}
	}
	for _, id := range ids {
		m.known.aliases.put(id, out[id])
	}
	return nil
}

// translated translates a reply; err passes through. The reply's messages may be
// somebody else's too, so what changes is copied.
func (m *Manager) translated(ctx context.Context, reply stages.Reply, err error) (stages.Reply, error) {
	if err != nil {
		return reply, err
	}
	reply.Response, err = m.translateOp(ctx, reply.Response)
	return reply, err
}

func (m *Manager) translateOp(ctx context.Context, op *pb.ResponseOp) (*pb.ResponseOp, error) {
	switch u := op.GetResponse().(type) {
	case *pb.ResponseOp_ResponseRange:
		r := u.ResponseRange
		kvs, err := m.TranslateKV(ctx, r.GetKvs())
		if err != nil || sameKVs(kvs, r.GetKvs()) {
			return op, err
		}
		return &pb.ResponseOp{Response: &pb.ResponseOp_ResponseRange{ResponseRange: &pb.RangeResponse{
			Header: r.Header, Kvs: kvs, More: r.More, Count: r.Count}}}, nil
	case *pb.ResponseOp_ResponsePut:
		r := u.ResponsePut
		if r.GetPrevKv().GetLease() >= 0 {
			return op, nil
		}
		kvs, err := m.TranslateKV(ctx, []*mvccpb.KeyValue{r.PrevKv})
		if err != nil {
			return op, err
		}
		return &pb.ResponseOp{Response: &pb.ResponseOp_ResponsePut{ResponsePut: &pb.PutResponse{
			Header: r.Header, PrevKv: kvs[0]}}}, nil
	case *pb.ResponseOp_ResponseDeleteRange:
		r := u.ResponseDeleteRange
		kvs, err := m.TranslateKV(ctx, r.GetPrevKvs())
		if err != nil || sameKVs(kvs, r.GetPrevKvs()) {
			return op, err
		}
		return &pb.ResponseOp{Response: &pb.ResponseOp_ResponseDeleteRange{ResponseDeleteRange: &pb.DeleteRangeResponse{
			Header: r.Header, Deleted: r.Deleted, PrevKvs: kvs}}}, nil
	case *pb.ResponseOp_ResponseTxn:
		return m.translateTxn(ctx, op, u.ResponseTxn)
	}
	return op, nil
}

// sameKVs tells whether TranslateKV gave back what it got.
func sameKVs(a, b []*mvccpb.KeyValue) bool { return len(a) == 0 || &a[0] == &b[0] }

func (m *Manager) translateTxn(ctx context.Context, op *pb.ResponseOp, t *pb.TxnResponse) (*pb.ResponseOp, error) {
	var out []*pb.ResponseOp // nil as long as nothing changed
	for i, inner := range t.GetResponses() {
		translated, err := m.translateOp(ctx, inner)
		if err != nil {
			return op, err
		}
		if translated != inner && out == nil {
			out = append(make([]*pb.ResponseOp, 0, len(t.Responses)), t.Responses[:i]...)
		}
		if out != nil {
			out = append(out, translated)
		}
	}
	if out == nil {
		return op, nil
	}
	return &pb.ResponseOp{Response: &pb.ResponseOp_ResponseTxn{ResponseTxn: &pb.TxnResponse{
		Header: t.Header, Succeeded: t.Succeeded, Responses: out}}}, nil
}

// sleep waits; false if ctx is done first.
func sleep(ctx context.Context, d time.Duration) bool {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
		return true
	case <-ctx.Done():
		return false
	}
}
