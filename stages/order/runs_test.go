package order

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"testing"
)

// naive is the plainest map there can be: one number per revision. It says what a state
// must say.
type naive struct {
	globals  []map[int64]int64 // by shard number, shard revision to global
	covered  []int64
	revision int64
}

func (n *naive) genesis(g *Genesis) {
	n.revision = max(1, g.FirstRevision-1)
	for range g.Shards {
		n.globals = append(n.globals, map[int64]int64{1: n.revision})
	}
	for i, sh := range g.Shards {
		for rev := int64(2); rev <= sh.Revision; rev++ {
			if !slices.Contains(sh.Internal, rev) {
				n.revision++
				n.globals[i][rev] = n.revision
			}
		}
		n.covered = append(n.covered, sh.Revision)
	}
}

func (n *naive) cover(cs []Covered) {
	for _, c := range cs {
		for rev := n.covered[c.Shard] + 1; rev <= c.Revision; rev++ {
			n.revision++
			n.globals[c.Shard][rev] = n.revision
			n.covered[c.Shard] = rev
		}
	}
}

// first is the shard's first revision with a global one at or above global.
func (n *naive) first(shard int, global int64) int64 {
	for rev := int64(1); rev <= n.covered[shard]; rev++ {
		if g, ok := n.globals[shard][rev]; ok && g >= global {
			return rev
		}
	}
	return n.covered[shard] + 1
}

func (n *naive) floor(shard int, global int64) (floor int64) {
	for rev, g := range n.globals[shard] {
		if g <= global {
			floor = max(floor, rev)
		}
	}
	return floor
}

// complete is the largest global revision at or below which the shard has nothing that
// is newer than its revision rev.
func (n *naive) complete(shard int, rev int64) int64 {
	least := n.revision + 1
	for r, g := range n.globals[shard] {
		if r > rev {
			least = min(least, g)
		}
	}
	return least - 1
}

// randomGenesis is one of up to four shards, adopted ones with stamps somewhere in them.
func randomGenesis(rnd *rand.Rand) *Genesis {
	g := &Genesis{Deployment: "00c0ffee00000001"}
	if rnd.IntN(3) == 0 {
		g.FirstRevision = rnd.Int64N(50)
	}
	for i := range 1 + rnd.IntN(4) {
		sh := GenesisShard{Name: fmt.Sprint(i), Revision: 1 + rnd.Int64N(12)}
		for rev := int64(2); rev <= sh.Revision; rev++ {
			if rnd.IntN(4) == 0 {
				sh.Internal = append(sh.Internal, rev)
			}
		}
		if rnd.IntN(2) == 0 {
			sh.Compacted = rnd.Int64N(sh.Revision + 1)
		}
		g.Shards = append(g.Shards, sh)
	}
	return g
}

// randomCover moves some shards, and says things that are known of others.
func randomCover(rnd *rand.Rand, covered []int64) (cs []Covered) {
	for i, v := range covered {
		if rnd.IntN(2) == 0 {
			cs = append(cs, Covered{Shard: i, Revision: max(1, v-2+rnd.Int64N(6))})
		}
	}
	return cs
}

// randomState is a state after some entries, and what it must say. Everything it does to
// the state goes through the stored form of entries.
func randomState(t *testing.T, rnd *rand.Rand, entries int) (*state, *naive) {
	t.Helper()
	s, n := &state{}, &naive{}
	e := Entry{Genesis: randomGenesis(rnd)}
	n.genesis(e.Genesis)
	for pos := int64(10); ; pos += 1 + rnd.Int64N(3) {
		stored, err := decodeEntry(e.encode())
		if err != nil {
			t.Fatal(err)
		}
		if err := s.replay(pos, stored); err != nil {
			t.Fatal(err)
		}
		if entries--; entries < 0 {
			return s, n
		}
		e = Entry{Cover: randomCover(rnd, n.covered)}
		if len(e.Cover) == 0 {
			e = Entry{Compacted: 1 + rnd.Int64N(n.revision)}
		}
		n.cover(e.Cover)
	}
}

func TestLookupsAreThoseOfAMapWithOneNumberPerRevision(t *testing.T) {
	for seed := range uint64(300) {
		rnd := rand.New(rand.NewPCG(seed, 1))
		s, n := randomState(t, rnd, rnd.IntN(30))
		if s.revision != n.revision || !slices.Equal(s.covered, n.covered) {
			t.Fatalf("seed %d: at %d %v, want %d %v", seed, s.revision, s.covered, n.revision, n.covered)
		}
		for i := range s.maps {
			compareLookups(t, fmt.Sprintf("seed %d, shard %d", seed, i), s, n, i)
		}
	}
}

// compareLookups compares everything that can be looked up of a shard.
func compareLookups(t *testing.T, where string, s *state, n *naive, i int) {
	t.Helper()
	m := s.maps[i]
	for rev := int64(0); rev <= n.covered[i]+2; rev++ {
		g, ok := m.global(rev)
		if want, there := n.globals[i][rev]; g != want || ok != there {
			t.Fatalf("%s: revision %d has the global one %d, %t; want %d, %t", where, rev, g, ok, want, there)
		}
		if got, exact := s.global(i, rev); exact != ok || ok && got != g {
			t.Fatalf("%s: global(%d) = %d, %t", where, rev, got, exact)
		}
		if back, ok := m.local(g); ok && g > 0 && back != rev {
			t.Fatalf("%s: %d is %d is %d", where, rev, g, back)
		}
		if got, want := s.complete(i, rev), n.complete(i, rev); rev > 0 && got != want {
			t.Fatalf("%s: complete(%d) = %d, want %d", where, rev, got, want)
		}
	}
	for g := int64(0); g <= n.revision+2; g++ {
		if got, want := m.floor(g), n.floor(i, g); got != want {
			t.Fatalf("%s: floor(%d) = %d, want %d", where, g, got, want)
		}
		if got, want := s.first(i, g), n.first(i, g); got != want {
			t.Fatalf("%s: first(%d) = %d, want %d", where, g, got, want)
		}
		if rev, ok := m.local(g); ok != (n.globals[i][rev] == g && g > 0) {
			t.Fatalf("%s: local(%d) = %d, %t", where, g, rev, ok)
		}
	}
}

// Everybody who is told that everything up to at(G) is there has the state at G: nothing
// newer, nothing missing.
func TestAtIsTheLastRevisionBeforeAnythingNewer(t *testing.T) {
	for seed := range uint64(300) {
		rnd := rand.New(rand.NewPCG(seed, 2))
		s, n := randomState(t, rnd, rnd.IntN(30))
		for g := int64(1); g <= n.revision; g++ {
			for i, at := range s.vector(g) {
				for rev, global := range n.globals[i] {
					if (global <= g) != (rev <= at) {
						t.Fatalf("seed %d, shard %d: at(%d) = %d, but revision %d is %d", seed, i, g, at, rev, global)
					}
				}
				if at > n.covered[i] || at < n.covered[i] && n.globals[i][at+1] == 0 {
					t.Fatalf("seed %d, shard %d: at(%d) = %d is not the last of its state", seed, i, g, at)
				}
			}
		}
		if got := s.vector(n.revision); !slices.Equal(got, n.covered) {
			t.Fatalf("seed %d: now is %v, want %v", seed, got, n.covered)
		}
	}
}

func TestNeighboursAreOneRun(t *testing.T) {
	var m runs
	m = m.add(1, 1, 1)
	m = m.add(2, 3, 2)
	m = m.add(5, 1, 5)
	m = m.add(6, 1, 9) // other shards were in between
	m = m.add(9, 1, 10)
	if want := (runs{{1, 5, 1}, {6, 1, 9}, {9, 1, 10}}); !slices.Equal(m, want) {
		t.Fatalf("%v, want %v", m, want)
	}
}
