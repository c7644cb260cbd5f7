package stages

import (
	"bytes"
	"cmp"
	"slices"
)

// fromKey is the range_end with which etcd means "from the key on, without end".
var fromKey = []byte{0}

// Part is what one shard holds of a range. Key and End are the hull of the
// shard's pieces, clipped to the range, in etcd's convention (see Table.Range):
// between its pieces a shard holds nothing, so the hull finds the same keys.
type Part struct {
	Shard *Shard
	Key   []byte
	End   []byte
}

// Range gives the parts of [key, end): one per shard that the range overlaps, in
// order of their first key, equal ones by shard number. End is meant as etcd
// means range_end: empty is the single key, "\x00" is everything from key on.
// An empty key with an end is taken as "\x00", the first key there can be.
// A range that is empty because end is not above key has one part, as it was
// given, on the shard of key: some shard must answer it, and this one would hold
// its keys. Parts share memory with key and end.
func (t *Table) Range(key, end []byte) []Part {
	if len(key) == 0 && len(end) > 0 {
		key = fromKey // else a part could end at "\x00", which does not mean there
	}
	if isPoint(key, end) || isEmptyRange(key, end) {
		return []Part{{Shard: t.Lookup(key), Key: key, End: end}}
	}
	first := t.find(key)
	if l := t.segments[first].line; len(l.shards) == 1 && t.holds(first, end) {
		return []Part{{Shard: l.shards[0], Key: key, End: end}}
	}
	var parts []Part
	at := make(map[*Shard]int, len(t.shards))
	for i := first; i < len(t.segments) && (i == first || before(t.segments[i].start, end)); i++ {
		from, to := t.segments[i].start, end
		if i == first {
			from = key
		}
		if !t.holds(i, end) {
			to = t.segments[i+1].start
		}
		for _, s := range t.segments[i].line.shards {
			j, seen := at[s]
			if !seen {
				j = len(parts)
				at[s] = j
				parts = append(parts, Part{Shard: s, Key: from})
			}
			parts[j].End = to // segments ascend, so the last piece ends the hull
		}
	}
	slices.SortFunc(parts, func(a, b Part) int {
		return cmp.Or(bytes.Compare(a.Key, b.Key), cmp.Compare(a.Shard.Number, b.Shard.Number))
	})
	return parts
}

// holds reports whether a range that overlaps segment i and ends at end ends in it.
func (t *Table) holds(i int, end []byte) bool {
	return i+1 == len(t.segments) || !before(t.segments[i+1].start, end)
}

// before reports whether key lies below the range end.
func before(key, end []byte) bool {
	return isFromKey(end) || bytes.Compare(key, end) < 0
}

func isFromKey(end []byte) bool { return len(end) == 1 && end[0] == 0 }

// isEmptyRange reports whether [key, end) can hold nothing.
func isEmptyRange(key, end []byte) bool {
	return len(end) > 0 && !isFromKey(end) && bytes.Compare(end, key) <= 0
}

// isPoint reports whether the range is one key, said in either of two ways.
func isPoint(key, end []byte) bool {
	return len(end) == 0 ||
		len(key) > 0 && len(end) == len(key)+1 && end[len(key)] == 0 && bytes.HasPrefix(end, key)
}
