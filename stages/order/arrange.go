package order

import (
	"bytes"
	"cmp"
	"hash/fnv"
	"slices"

	"github.com/sharder/sharder/stages"
	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	"go.etcd.io/etcd/api/v3/mvccpb"
)

// Arrangement is the order of the events inside one global revision. etcd has them in the
// order of the operations, and by key inside a DeleteRange and when a lease ends. nil is
// the order of the shards by number, each with its own order.
//
// It is kept for as long as the revision is, on every sharder, so it is as small as it can
// be. Nobody changes one.
type Arrangement struct {
	ByKey bool         `json:"byKey,omitempty"` // all that there is to say
	Ops   []arrangedOp `json:"ops,omitempty"`   // else: the operations that write, in their order
}

// arrangedOp is a Put, or a DeleteRange with its range in etcd's terms.
type arrangedOp struct {
	// Put is the hash of a Put's key. Only the Puts of the same Txn are told apart by it;
	// one whose hash another one has, too, has its key instead.
	Put    uint32 `json:"put,omitempty"`
	PutKey []byte `json:"putKey,omitempty"`
	Key    []byte `json:"key,omitempty"`
	End    []byte `json:"end,omitempty"`
}

// arrange gives the order of the events of a Txn's path, nil if that of the shards is the
// same for all that the operations may write.
func arrange(t *stages.Table, txn *pb.TxnRequest, path []bool) *Arrangement {
	var ops []arrangedOp
	last, inOrder := 0, true // the shard whose turn it is
	for _, op := range onPath(txn, path) {
		var parts []stages.Part
		switch u := op.GetRequest().(type) {
		case *pb.RequestOp_RequestPut:
			parts = t.Range(u.RequestPut.Key, nil)
			ops = append(ops, arrangedOp{PutKey: u.RequestPut.Key})
		case *pb.RequestOp_RequestDeleteRange:
			parts = t.Range(u.RequestDeleteRange.Key, u.RequestDeleteRange.RangeEnd)
			ops = append(ops, arrangedOp{Key: u.RequestDeleteRange.Key, End: u.RequestDeleteRange.RangeEnd})
		}
		for i, p := range parts {
			inOrder = inOrder && p.Shard.Number >= last && (i == 0 || endsBy(parts[i-1].End, p.Key))
			last = p.Shard.Number
		}
	}
	switch {
	case inOrder:
		return nil
	case len(ops) == 1:
		return &Arrangement{ByKey: true}
	}
	return &Arrangement{Ops: hashed(ops)}
}

// endsBy tells whether a range with this end has no key from key on.
func endsBy(end, key []byte) bool { return !isFromKey(end) && bytes.Compare(end, key) <= 0 }

// hashed puts hashes in the place of the keys of Puts, where that leaves them apart.
func hashed(ops []arrangedOp) []arrangedOp {
	seen := map[uint32]int{}
	for _, op := range ops {
		if op.PutKey != nil {
			seen[hashOf(op.PutKey)]++
		}
	}
	for i, op := range ops {
		if h := hashOf(op.PutKey); op.PutKey != nil && seen[h] == 1 {
			ops[i] = arrangedOp{Put: h}
		}
	}
	return ops
}

// hashOf is never 0. It is in the log: it must not change.
func hashOf(key []byte) uint32 {
	h := fnv.New32a()
	h.Write(key)
	return max(1, h.Sum32())
}

// Sort puts events of the revision, all or some, into their order. They are given by
// number of the shard, as each shard has them.
func (a *Arrangement) Sort(events []*mvccpb.Event) {
	if a == nil || len(events) < 2 {
		return
	}
	if a.ByKey {
		slices.SortStableFunc(events, func(x, y *mvccpb.Event) int { return bytes.Compare(x.Kv.Key, y.Kv.Key) })
		return
	}
	placed := make([]placedEvent, len(events))
	for i, e := range events {
		placed[i] = placedEvent{op: a.madeBy(e), event: e}
	}
	slices.SortStableFunc(placed, func(x, y placedEvent) int {
		return cmp.Or(cmp.Compare(x.op, y.op), bytes.Compare(x.event.Kv.Key, y.event.Kv.Key))
	})
	for i, p := range placed {
		events[i] = p.event
	}
}

type placedEvent struct {
	op    int // its index
	event *mvccpb.Event
}

// madeBy gives the index of the operation that an event comes from: the first that could
// be, since no Txn deletes a key before it puts it (checkWrites). What was written past all
// sharders, and shares the number, comes behind all.
func (a *Arrangement) madeBy(e *mvccpb.Event) int {
	made := arrangedOp.deletes
	if e.Type == mvccpb.PUT {
		made = arrangedOp.puts
	}
	if i := slices.IndexFunc(a.Ops, func(op arrangedOp) bool { return made(op, e.Kv.Key) }); i >= 0 {
		return i
	}
	return len(a.Ops)
}

func (op arrangedOp) puts(key []byte) bool {
	return op.Put != 0 && op.Put == hashOf(key) || op.PutKey != nil && bytes.Equal(op.PutKey, key)
}

func (op arrangedOp) deletes(key []byte) bool {
	span, some := spanOf(op.Key, op.End)
	return len(op.Key) > 0 && some && holds(span, key)
}
