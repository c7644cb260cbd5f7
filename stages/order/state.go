package order

import (
	"fmt"
	"slices"

	"github.com/sharder/sharder/stages"
)

// state is what the entries of a log up to one position say: a pure function of them,
// so that all sharders that replayed as far have the same. It is not safe for
// concurrent use; Order guards it.
type state struct {
	pos       int64    // of the newest entry replayed
	number    int64    // how many entries have been replayed
	genesis   *Genesis // nil before the first entry
	revision  int64    // G: the newest global revision
	covered   []int64  // V: by shard number, everything up to it has its place in the order
	compacted int64    // the newest compaction, a global revision; 0 if there was none
	maps      []runs   // by shard number; none is empty
	batches   batches  // of transactions over several shards
}

// replay adds the entry at a position. Its error means that the log is not one of
// sharder's or is damaged; the state is then of no more use.
func (s *state) replay(pos int64, e Entry) error {
	if pos <= s.pos {
		return fmt.Errorf("%w: position %d after %d", errCorrupt, pos, s.pos)
	}
	if (s.genesis == nil) != (e.Genesis != nil) {
		return fmt.Errorf("%w: position %d: the genesis has to be the first entry and no other", errCorrupt, pos)
	}
	s.pos = pos
	s.number++
	s.batches.forget(s.number)
	switch {
	case e.Genesis != nil:
		s.begin(e.Genesis)
	case e.Compacted > 0:
		s.compacted = max(s.compacted, min(e.Compacted, s.revision))
		s.batches.dropArrangements(s.compacted)
	case e.Open != nil:
		return s.open(e.Open)
	case e.Fenced != nil:
		return s.fenced(e.Fenced)
	case e.Decided != nil:
		return s.decided(e.Decided)
	case e.Closed != nil:
		return s.closed(e.Closed)
	default:
		return s.cover(e.Cover, e.Written)
	}
	return nil
}

// begin covers what the shards hold: shard by shard, each in its own order. A shard's
// revision 1, the empty store, is where the global revisions start. What shards
// have compacted of their own can't be read at the revisions before it, on any shard.
func (s *state) begin(g *Genesis) {
	s.genesis = g
	s.revision = max(1, g.FirstRevision-1)
	if s.revision > 1 {
		s.compacted = s.revision
	}
	start := s.revision
	s.batches.activate(len(g.Shards))
	for _, sh := range g.Shards {
		m := runs{{start: 1, length: 1, global: start}}
		from := int64(2)
		for _, own := range append(slices.Clone(sh.Internal), sh.Revision+1) {
			if n := own - from; n > 0 {
				m = m.add(from, n, s.revision+1)
				s.revision += n
			}
			from = own + 1
		}
		s.maps, s.covered = append(s.maps, m), append(s.covered, sh.Revision)
		if sh.Compacted > 1 {
			s.compacted = max(s.compacted, m[m.at(sh.Compacted)].globalUpTo(sh.Compacted))
		}
	}
}

// cover moves the cut. What is new gets the next global revisions, ordered by shard
// number, then by the shard's own revision. A shard that is pinned stays where it is: only
// the entries about the batch know which of its revisions are sharder's own. But up to a write
// that found no fence, while the batch is not decided, none is.
func (s *state) cover(cs []Covered, written []int) error {
	for _, c := range cs {
		if c.Shard < 0 || c.Shard >= len(s.covered) {
			return fmt.Errorf("%w: position %d covers shard number %d of %d", errCorrupt, s.pos, c.Shard, len(s.covered))
		}
		if b := s.batches.pinned(c.Shard); b != nil && !(b.unfenced() && slices.Contains(written, c.Shard)) {
			continue
		}
		if err := s.advance(c.Shard, c.Revision); err != nil {
			return err
		}
	}
	return nil
}

// advance moves V of one shard, and numbers what is new.
func (s *state) advance(shard int, revision int64) error {
	n := revision - s.covered[shard]
	if n <= 0 {
		return nil
	}
	if n > maxRevision-s.revision {
		return fmt.Errorf("%w: position %d covers shard number %d up to %d: no number is left", errCorrupt, s.pos, shard, revision)
	}
	s.maps[shard] = s.maps[shard].add(s.covered[shard]+1, n, s.revision+1)
	s.revision += n
	s.covered[shard] = revision
	return nil
}

// cut is the newest moment.
func (s *state) cut() stages.Cut {
	return stages.Cut{Revision: s.revision, At: slices.Clone(s.covered), Pending: s.pending(), Compacted: s.compacted}
}

// vector gives for each shard its revision with the state at a global revision, which
// must lie between the compaction point and the newest; of a shard that has not settled
// up to there (see settled) the revision before.
func (s *state) vector(global int64) []int64 {
	out := make([]int64, len(s.maps))
	for i := range out {
		out[i] = s.at(i, global)
	}
	return out
}

// at is a shard's revision with the state at a global one: the last before anything
// newer. That it counts revisions of sharder's own, which have no number, makes it the
// same as the revision at which a shard may have been compacted in between.
func (s *state) at(shard int, global int64) int64 { return s.first(shard, global+1) - 1 }

// first is the shard's first revision whose global one is at least global, as far as is
// known. It is exact from the compaction point on, swept or not: what is left out of the
// map has a number below that.
func (s *state) first(shard int, global int64) int64 {
	if rev, ok := s.maps[shard].ceil(global); ok {
		return rev
	}
	return s.covered[shard] + 1
}

// global is the global revision of a shard's revision; if it has none (exact is false)
// that of the next one below.
func (s *state) global(shard int, rev int64) (global int64, exact bool) {
	m := s.maps[shard]
	i := m.at(rev)
	if i < 0 {
		return 0, false
	}
	return m[i].globalUpTo(rev), rev <= m[i].end()
}

// complete is the global revision up to which somebody is complete who has everything
// of one shard up to its revision rev, as far as that shard is concerned. What is given
// out on the shard and not known to be there yet is not complete.
func (s *state) complete(shard int, rev int64) int64 {
	if g, ok := s.maps[shard].next(rev); ok && rev < s.covered[shard] {
		return g - 1
	}
	if p := s.pendingOn(shard); p > 0 {
		return p - 1
	}
	return s.revision // all above rev is sharder's own
}

// runs is how many runs the map has.
func (s *state) runs() (n int) {
	for _, m := range s.maps {
		n += len(m)
	}
	return n
}
