package importer

import (
	"bytes"

	"go.etcd.io/etcd/api/v3/mvccpb"
)

// verdict is what is to be done about a key.
type verdict int

const (
	same     verdict = iota // nothing: both sides agree
	put                     // the source's value goes to the target
	remove                  // the target's key goes
	conflict                // the target has, or has deleted, what the import did not write
)

// judge tells the import's own keys in the target from others'. It is made from the
// record at the beginning of a round, and does not change in it.
type judge struct {
	revision  int64 // that the round copies
	base      int64 // the oldest that copies may be of
	complete  bool  // there are copies of all keys of base
	written   int64 // the import's newest revision in the target
	window    span  // keys that may have been written after that; both ends belong to it
	overwrite bool
}

func judgeOf(r *record, overwrite bool) judge {
	return judge{
		revision: r.Revision, base: r.Base, complete: r.Complete, written: r.Written,
		window: span{key: r.Next, end: r.Ahead}, overwrite: overwrite,
	}
}

// judge decides about one key.
func (j judge) judge(p pair) verdict {
	switch {
	case equal(p.src, p.dst):
		return same
	case j.overwrite && p.src == nil:
		return remove
	case j.overwrite:
		return put
	case p.src == nil && j.revision > j.base && j.own(p.dst):
		return remove // the source deleted it since it was copied
	case p.src == nil:
		return conflict
	case p.dst == nil && j.complete && p.src.ModRevision <= j.base && p.src.Lease == 0:
		return conflict // it was copied, and somebody deleted the copy
	case p.dst == nil:
		return put
	case p.src.ModRevision > j.base && j.own(p.dst):
		return put // the source changed it since it was copied
	}
	return conflict
}

// own tells whether the target's key may be a copy that the import made.
func (j judge) own(kv *mvccpb.KeyValue) bool {
	return kv.ModRevision <= j.written ||
		len(j.window.end) > 0 && bytes.Compare(j.window.key, kv.Key) <= 0 && bytes.Compare(kv.Key, j.window.end) <= 0
}

// equal compares what an import brings: value and lease.
func equal(src, dst *mvccpb.KeyValue) bool {
	return src != nil && dst != nil && src.Lease == dst.Lease && bytes.Equal(src.Value, dst.Value)
}
