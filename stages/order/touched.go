package order

import (
	"bytes"
	"slices"

	"github.com/sharder/sharder/stages"
	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
)

// touched is what a Txn may read and write, in any of its branches: spans of keys, in
// ascending order and apart from each other.
type touched struct {
	reads, writes []stages.Span
}

// touches collects what a Txn touches. A Put reads its key if its outcome or its answer
// depends on what was there. A range at an older revision counts like one of now.
func touches(txn *pb.TxnRequest) touched {
	var t touched
	eachSpan(txn, func(key, end []byte, op *pb.RequestOp) {
		span, some := spanOf(key, end)
		if !some {
			return
		}
		put, del := op.GetRequestPut(), op.GetRequestDeleteRange()
		if put == nil || put.PrevKv || put.IgnoreValue || put.IgnoreLease {
			t.reads = append(t.reads, span)
		}
		if put != nil || del != nil {
			t.writes = append(t.writes, span)
		}
	})
	t.reads, t.writes = apart(t.reads), apart(t.writes)
	return t
}

// conflict tells whether one of two transactions may write what the other reads or writes.
func (t touched) conflict(o touched) bool {
	return meet(t.writes, o.writes) || meet(t.writes, o.reads) || meet(t.reads, o.writes)
}

// shardsOf are the numbers of the shards of everything that a Txn names, ascending.
func shardsOf(t *stages.Table, txn *pb.TxnRequest) []int {
	var shards []int
	eachSpan(txn, func(key, end []byte, _ *pb.RequestOp) {
		for _, p := range t.Range(key, end) {
			if i, has := slices.BinarySearch(shards, p.Shard.Number); !has {
				shards = slices.Insert(shards, i, p.Shard.Number)
			}
		}
	})
	return shards
}

// eachSpan visits every key and range that a Txn names, in any branch, with etcd's range
// ends. op is nil for a compare.
func eachSpan(txn *pb.TxnRequest, visit func(key, end []byte, op *pb.RequestOp)) {
	for _, c := range txn.GetCompare() {
		visit(c.Key, c.RangeEnd, nil)
	}
	for _, ops := range [][]*pb.RequestOp{txn.GetSuccess(), txn.GetFailure()} {
		for _, op := range ops {
			switch u := op.GetRequest().(type) {
			case *pb.RequestOp_RequestRange:
				visit(u.RequestRange.GetKey(), u.RequestRange.GetRangeEnd(), op)
			case *pb.RequestOp_RequestPut:
				visit(u.RequestPut.GetKey(), nil, op)
			case *pb.RequestOp_RequestDeleteRange:
				visit(u.RequestDeleteRange.GetKey(), u.RequestDeleteRange.GetRangeEnd(), op)
			case *pb.RequestOp_RequestTxn:
				eachSpan(u.RequestTxn, visit)
			}
		}
	}
}

// spanOf is the span of a key, or of a range with etcd's range end; false if nothing can be in it.
func spanOf(key, end []byte) (span stages.Span, some bool) {
	switch {
	case len(end) == 0:
		return stages.Span{Key: key, End: append(slices.Clone(key), 0)}, true
	case isFromKey(end):
		return stages.Span{Key: key}, true
	}
	return stages.Span{Key: key, End: end}, bytes.Compare(key, end) < 0
}

// holds tells whether a key lies in a span.
func holds(s stages.Span, key []byte) bool {
	return bytes.Compare(s.Key, key) <= 0 && before(key, s.End)
}

// before tells whether a key lies below the end of a span.
func before(key, end []byte) bool { return len(end) == 0 || bytes.Compare(key, end) < 0 }

// overlap tells whether two spans have a key in common.
func overlap(a, b stages.Span) bool { return before(a.Key, b.End) && before(b.Key, a.End) }

// apart sorts spans and makes one of those that overlap or adjoin.
func apart(spans []stages.Span) []stages.Span {
	slices.SortFunc(spans, func(a, b stages.Span) int { return bytes.Compare(a.Key, b.Key) })
	out := spans[:0]
	for _, s := range spans {
		if n := len(out); n > 0 && (before(s.Key, out[n-1].End) || bytes.Equal(s.Key, out[n-1].End)) {
			if last := &out[n-1]; len(s.End) == 0 || !before(s.End, last.End) {
				last.End = s.End
			}
			continue
		}
		out = append(out, s)
	}
	return out
}

// meet tells whether any spans of two lists, each apart and ascending, overlap.
func meet(a, b []stages.Span) bool {
	for len(a) > 0 && len(b) > 0 {
		switch {
		case overlap(a[0], b[0]):
			return true
		case before(a[0].Key, b[0].Key):
			a = a[1:]
		default:
			b = b[1:]
		}
	}
	return false
}
