package order

import (
	"cmp"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
)

// The form of entries. The first byte of each is the version of the form it needs: a
// reader takes all versions up to its own, and refuses a log with a newer one whole,
// since skipping an entry would make two sharders disagree about every revision after it.
// Version 2 has the entries about batches.
const (
	entryVersion      = 2
	plainEntryVersion = 1
)

// The kinds of entries, the second byte.
const (
	kindGenesis   = 1 // JSON of a Genesis
	kindCover     = 2 // pairs of uvarints: shard number ascending, shard revision
	kindCompacted = 3 // one uvarint: a global revision
	kindOpen      = 4 // JSON of an Open
	kindFenced    = 5 // JSON of a Fenced
	kindDecided   = 6 // JSON of a Decided
	kindClosed    = 7 // JSON of a Closed
	kindWritten   = 8 // a cover, before it the number of its shards that are in Written, and these
)

// ErrNewer says that the log was written by a sharder that is newer than this one.
var ErrNewer = errors.New("the order log has an entry that this version does not know; start a sharder that is as new as the one that wrote it")

// errCorrupt says that an entry is no entry of sharder's.
var errCorrupt = errors.New("the order log holds something that is no entry")

// Entry is one entry of the order log: exactly one of its parts is set.
type Entry struct {
	Genesis *Genesis
	Cover   []Covered
	// Written are those shards of Cover, ascending, where the revision is of a write that
	// found no fence. So it is before the fence of a batch that is not decided, and counts
	// although the shard is pinned.
	Written   []int
	Compacted int64
	Open      *Open
	Fenced    *Fenced
	Decided   *Decided
	Closed    *Closed
}

// Covered says: the shard has made everything up to the revision durable.
type Covered struct {
	Shard    int   `json:"shard"`
	Revision int64 `json:"revision"`
}

// encode gives the entry as it is stored.
func (e Entry) encode() []byte {
	b := []byte{plainEntryVersion}
	switch {
	case e.Open != nil:
		return encodeJSON(kindOpen, e.Open)
	case e.Fenced != nil:
		return encodeJSON(kindFenced, e.Fenced)
	case e.Decided != nil:
		return encodeJSON(kindDecided, e.Decided)
	case e.Closed != nil:
		return encodeJSON(kindClosed, e.Closed)
	case e.Genesis != nil:
		text, _ := json.Marshal(e.Genesis) // strings and numbers: can't fail
		return append(append(b, kindGenesis), text...)
	case e.Compacted != 0:
		return binary.AppendUvarint(append(b, kindCompacted), uint64(e.Compacted))
	}
	if len(e.Written) == 0 {
		b = append(b, kindCover)
	} else {
		b = binary.AppendUvarint([]byte{entryVersion, kindWritten}, uint64(len(e.Written)))
		for _, n := range e.Written {
			b = binary.AppendUvarint(b, uint64(n))
		}
	}
	for _, c := range e.Cover {
		b = binary.AppendUvarint(b, uint64(c.Shard))
		b = binary.AppendUvarint(b, uint64(c.Revision))
	}
	return b
}

// decodeEntry reads a stored entry. The error is ErrNewer or wraps errCorrupt.
func decodeEntry(b []byte) (Entry, error) {
	if len(b) < 2 || b[0] == 0 {
		return Entry{}, fmt.Errorf("%w: %q", errCorrupt, b)
	}
	if b[0] > entryVersion {
		return Entry{}, ErrNewer
	}
	var e Entry
	var err error
	switch kind, rest := b[1], b[2:]; kind {
	case kindGenesis:
		e.Genesis = &Genesis{}
		if err = json.Unmarshal(rest, e.Genesis); err == nil {
			err = e.Genesis.check()
		}
	case kindCover:
		e.Cover, err = decodeCover(rest)
	case kindWritten:
		e.Cover, e.Written, err = decodeWritten(rest)
	case kindCompacted:
		var ns []int64
		if ns, err = numbers(rest); err == nil && (len(ns) != 1 || ns[0] < 1) {
			err = errors.New("not one revision")
		}
		if err == nil {
			e.Compacted = ns[0]
		}
	case kindOpen:
		e.Open, err = decodeJSON[Open](rest)
	case kindFenced:
		e.Fenced, err = decodeJSON[Fenced](rest)
	case kindDecided:
		e.Decided, err = decodeJSON[Decided](rest)
	case kindClosed:
		e.Closed, err = decodeJSON[Closed](rest)
	default:
		return Entry{}, ErrNewer
	}
	if err != nil {
		return Entry{}, fmt.Errorf("%w: %w", errCorrupt, err)
	}
	return e, nil
}

// decodeWritten reads a cover with the shards where a write found no fence.
func decodeWritten(b []byte) (cover []Covered, written []int, err error) {
	ns, err := numbers(b)
	if err != nil || len(ns) == 0 || ns[0] < 1 || ns[0] > int64(len(ns)-1) {
		return nil, nil, cmp.Or(err, errors.New("its shards are cut off"))
	}
	if cover, err = covered(ns[1+ns[0]:]); err != nil {
		return nil, nil, err
	}
	for _, n := range ns[1 : 1+ns[0]] {
		if !slices.ContainsFunc(cover, func(c Covered) bool { return int64(c.Shard) == n }) {
			return nil, nil, fmt.Errorf("shard %d is not covered", n)
		}
		written = append(written, int(n))
	}
	return cover, written, ascending(written)
}

// decodeCover reads the pairs of a cover; there is at least one.
func decodeCover(b []byte) ([]Covered, error) {
	ns, err := numbers(b)
	if err != nil {
		return nil, err
	}
	return covered(ns)
}

func covered(ns []int64) ([]Covered, error) {
	if len(ns) == 0 || len(ns)%2 != 0 {
		return nil, errors.New("not pairs of shard and revision")
	}
	out := make([]Covered, 0, len(ns)/2)
	for pair := range slices.Chunk(ns, 2) {
		if n := len(out); pair[0] > maxShards || n > 0 && int64(out[n-1].Shard) >= pair[0] {
			return nil, fmt.Errorf("shard %d out of order", pair[0])
		}
		out = append(out, Covered{Shard: int(pair[0]), Revision: pair[1]})
	}
	return out, nil
}

// Bounds that nothing real comes near. They keep what is damaged from being taken for a
// number of shards, and sums of two revisions from overflowing.
const (
	maxShards   = 1 << 20
	maxRevision = int64(1)<<60 - 1
)

// numbers reads uvarints to the end of b; each is a revision or less.
func numbers(b []byte) ([]int64, error) {
	var out []int64
	for len(b) > 0 {
		n, used := binary.Uvarint(b)
		if used <= 0 || n > uint64(maxRevision) {
			return nil, errors.New("a number is damaged")
		}
		out, b = append(out, int64(n)), b[used:]
	}
	return out, nil
}
