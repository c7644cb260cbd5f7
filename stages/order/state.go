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
	genesis   *Genesis // nil before the first entry
	revision  int64    // G: the newest global revision
	covered   []int64  // V: by shard number, everything up to it has its place in the order
	compacted int64    // the newest compaction, a global revision; 0 if there was none
	maps      []runs   // by shard number
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
	switch {
	case e.Genesis != nil:
		s.begin(e.Genesis)
	case e.Compacted > 0:
		s.compacted = max(s.compacted, min(e.Compacted, s.revision))
	default:
		return s.cover(e.Cover)
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
			s.compacted = max(s.compacted, m[max(0, m.at(sh.Compacted))].globalUpTo(sh.Compacted))
		}
	}
}

// globalUpTo is the global revision of the run's last revision at or below rev.
func (r run) globalUpTo(rev int64) int64 { return r.global + min(rev-r.start, r.length-1) }

// cover moves the cut. What is new gets the next global revisions, ordered by shard
// number, then by the shard's own revision.
func (s *state) cover(cs []Covered) error {
	for _, c := range cs {
		if c.Shard >= len(s.covered) {
			return fmt.Errorf("%w: position %d covers shard number %d of %d", errCorrupt, s.pos, c.Shard, len(s.covered))
		}
		n := c.Revision - s.covered[c.Shard]
		if n <= 0 {
			continue
		}
		s.maps[c.Shard] = s.maps[c.Shard].add(s.covered[c.Shard]+1, n, s.revision+1)
		s.revision += n
		s.covered[c.Shard] = c.Revision
	}
	return nil
}

// cut is the newest moment.
func (s *state) cut() stages.Cut {
	return stages.Cut{Revision: s.revision, At: slices.Clone(s.covered), Compacted: s.compacted}
}

// vector gives for each shard its revision with the state at a global revision, which
// must lie between the first and the newest.
func (s *state) vector(global int64) []int64 {
	if global == s.revision {
		return slices.Clone(s.covered)
	}
	out := make([]int64, len(s.maps))
	for i, m := range s.maps {
		out[i] = m.floor(global)
	}
	return out
}

// complete is the global revision up to which somebody is complete who has everything
// of one shard up to its revision rev, as far as that shard is concerned.
func (s *state) complete(shard int, rev int64) int64 {
	if rev >= s.covered[shard] {
		return s.revision
	}
	if g, ok := s.maps[shard].next(rev); ok {
		return g - 1
	}
	return s.revision // all above rev is sharder's own
}
