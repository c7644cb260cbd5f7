package order

import (
	"bytes"
	"slices"

	"github.com/sharder/sharder/stages"
	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	"go.etcd.io/etcd/api/v3/mvccpb"
)

// overlay is what a Txn has written itself so far, on top of the state of a cut. It needs
// nothing of that state before it is looked through: over gives a range as it stands with
// the Txn's writes, from the range as it is in the state. It relies on checkWrites: no key
// is put twice, or deleted and then put. Its zero value has no writes.
type overlay struct {
	revision int64                     // of the Txn, for what it writes
	puts     map[string]*pb.PutRequest // by key, those that still stand
	gone     []stages.Span             // what was deleted
}

func (o *overlay) put(p *pb.PutRequest) {
	if o.puts == nil {
		o.puts = map[string]*pb.PutRequest{}
	}
	o.puts[string(p.Key)] = p
}

func (o *overlay) del(d *pb.DeleteRangeRequest) {
	span, some := spanOf(d.Key, d.RangeEnd)
	if !some {
		return
	}
	for key := range o.puts {
		if holds(span, []byte(key)) {
			delete(o.puts, key)
		}
	}
	o.gone = append(o.gone, span)
}

// deleted tells whether the Txn has deleted a key.
func (o *overlay) deleted(key []byte) bool {
	return slices.ContainsFunc(o.gone, func(s stages.Span) bool { return holds(s, key) })
}

// touches tells whether a range may look otherwise than in the state.
func (o *overlay) touches(key, end []byte) bool {
	span, some := spanOf(key, end)
	if !some {
		return false
	}
	for key := range o.puts {
		if holds(span, []byte(key)) {
			return true
		}
	}
	return slices.ContainsFunc(o.gone, func(s stages.Span) bool { return overlap(s, span) })
}

// over gives the keys of a range, in key order, from all those that the state has in it.
func (o *overlay) over(key, end []byte, kvs []*mvccpb.KeyValue) []*mvccpb.KeyValue {
	var out []*mvccpb.KeyValue
	seen := map[string]bool{}
	for _, kv := range kvs {
		switch p := o.puts[string(kv.Key)]; {
		case p != nil:
			seen[string(kv.Key)] = true
			out = append(out, o.written(p, kv))
		case !o.deleted(kv.Key):
			out = append(out, kv)
		}
	}
	span, some := spanOf(key, end)
	for k, p := range o.puts {
		if some && !seen[k] && holds(span, []byte(k)) {
			out = append(out, o.written(p, nil))
		}
	}
	slices.SortFunc(out, func(a, b *mvccpb.KeyValue) int { return bytes.Compare(a.Key, b.Key) })
	return out
}

// written is what a Put makes of what the state has, nil if it has nothing.
func (o *overlay) written(p *pb.PutRequest, was *mvccpb.KeyValue) *mvccpb.KeyValue {
	kv := &mvccpb.KeyValue{
		Key: p.Key, Value: p.Value, Lease: p.Lease,
		CreateRevision: o.revision, ModRevision: o.revision, Version: 1,
	}
	if was == nil {
		return kv
	}
	kv.CreateRevision, kv.Version = was.CreateRevision, was.Version+1
	if p.IgnoreValue {
		kv.Value = was.Value
	}
	if p.IgnoreLease {
		kv.Lease = was.Lease
	}
	return kv
}
