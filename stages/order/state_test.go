package order

import (
	"errors"
	"math/rand/v2"
	"slices"
	"testing"
)

func began(t *testing.T, g *Genesis) *state {
	t.Helper()
	s := &state{}
	if err := s.replay(2, Entry{Genesis: g}); err != nil {
		t.Fatal(err)
	}
	return s
}

func TestFreshShardsBeginAtOneWhateverTheirStamps(t *testing.T) {
	s := began(t, &Genesis{Shards: []GenesisShard{
		{Revision: 2, Internal: []int64{2}}, {Revision: 4, Internal: []int64{2, 3, 4}}, {Revision: 1},
	}})
	if s.revision != 1 || s.compacted != 0 || !slices.Equal(s.covered, []int64{2, 4, 1}) {
		t.Fatalf("at %d, compacted at %d, %v", s.revision, s.compacted, s.covered)
	}
	if err := s.replay(3, Entry{Cover: []Covered{{1, 5}}}); err != nil {
		t.Fatal(err)
	}
	if g, ok := s.maps[1].global(5); s.revision != 2 || g != 2 || !ok {
		t.Fatalf("the first write has the revision %d, the newest is %d", g, s.revision)
	}
}

func TestFirstRevisionMovesTheStartUp(t *testing.T) {
	s := began(t, &Genesis{FirstRevision: 1000, Shards: []GenesisShard{{Revision: 1}, {Revision: 1}}})
	if s.revision != 999 || s.compacted != 999 {
		t.Fatalf("begins at %d, compacted at %d", s.revision, s.compacted)
	}
	if err := s.replay(3, Entry{Cover: []Covered{{0, 2}}}); err != nil {
		t.Fatal(err)
	}
	if g, _ := s.maps[0].global(2); g != 1000 {
		t.Fatalf("the first write has the revision %d", g)
	}
	if at := s.vector(999); !slices.Equal(at, []int64{1, 1}) {
		t.Fatalf("before the first write the shards are at %v", at)
	}
}

// U4: what one shard has compacted of its own can't be read on any, or a range over
// several shards would be there in part.
func TestAdoptedShardsAreCompactedWhereTheLastOfThemIs(t *testing.T) {
	for _, c := range []struct {
		name   string
		shards []GenesisShard
		want   int64
	}{
		{"none was", []GenesisShard{{Revision: 10}, {Revision: 10}}, 0},
		{"the empty store", []GenesisShard{{Revision: 10, Compacted: 1}, {Revision: 10}}, 0},
		{"the first shard", []GenesisShard{{Revision: 10, Compacted: 4}, {Revision: 10}}, 4},
		{"the second shard", []GenesisShard{{Revision: 10}, {Revision: 10, Compacted: 4}}, 13},
		{"both", []GenesisShard{{Revision: 10, Compacted: 10}, {Revision: 10, Compacted: 2}}, 11},
		{"at a stamp", []GenesisShard{{Revision: 11, Compacted: 11, Internal: []int64{11}}, {Revision: 10}}, 10},
		{"at a stamp amid it", []GenesisShard{{Revision: 12, Compacted: 6, Internal: []int64{5, 6}}, {Revision: 10}}, 4},
	} {
		s := began(t, &Genesis{Shards: c.shards})
		if s.compacted != c.want {
			t.Errorf("%s: compacted at %d, want %d", c.name, s.compacted, c.want)
		}
		for i, at := range s.vector(max(1, s.compacted)) {
			if at < c.shards[i].Compacted {
				t.Errorf("%s: at the compaction point shard %d is read at %d, which it has compacted", c.name, i, at)
			}
		}
	}
}

func TestAdoptedShardsCanBeReadFromTheCompactionPointOn(t *testing.T) {
	for seed := range uint64(500) {
		rnd := rand.New(rand.NewPCG(seed, 3))
		g := randomGenesis(rnd)
		s := began(t, g)
		for global := max(1, s.compacted); global <= s.revision; global++ {
			for i, at := range s.vector(global) {
				if at < g.Shards[i].Compacted {
					t.Fatalf("seed %d: at %d shard %d is read at %d and was compacted at %d", seed, global, i, at, g.Shards[i].Compacted)
				}
			}
		}
	}
}

func TestDamagedLogsAreRefused(t *testing.T) {
	one := &Genesis{Shards: []GenesisShard{{Revision: 1}}}
	for _, c := range []struct {
		name    string
		entries []Entry
		at      []int64
	}{
		{"no genesis", []Entry{{Cover: []Covered{{0, 5}}}}, []int64{1}},
		{"two", []Entry{{Genesis: one}, {Genesis: one}}, []int64{1, 2}},
		{"a position twice", []Entry{{Genesis: one}, {Compacted: 1}}, []int64{1, 1}},
		{"an unknown shard", []Entry{{Genesis: one}, {Cover: []Covered{{1, 5}}}}, []int64{1, 2}},
		{"no shard", []Entry{{Genesis: one}, {Cover: []Covered{{-1, 5}}}}, []int64{1, 2}},
		{"beyond all numbers", []Entry{{Genesis: &Genesis{FirstRevision: 9, Shards: one.Shards}}, {Cover: []Covered{{0, maxRevision}}}}, []int64{1, 2}},
	} {
		s := &state{}
		var err error
		for i, e := range c.entries {
			err = s.replay(c.at[i], e)
		}
		if !errors.Is(err, errCorrupt) {
			t.Errorf("%s: %v", c.name, err)
		}
	}
}

// An order cluster that was restored while this sharder was cut off, and whose log has
// grown beyond the sharder again, shows by the numbers that etcd gives to the entries.
func TestAGapInTheLogIsRefused(t *testing.T) {
	genesis := Entry{Genesis: &Genesis{Shards: []GenesisShard{{Revision: 1}}}}
	for _, second := range []int64{1, 3, 100} {
		o := New(Options{})
		o.state = &state{}
		if err := o.take(Record{Position: 5, Number: 1, Entry: genesis.encode()}); err != nil {
			t.Fatal(err)
		}
		err := o.take(Record{Position: 9, Number: second, Entry: Entry{Compacted: 1}.encode()})
		if !errors.Is(err, errCorrupt) || o.state.pos != 5 {
			t.Errorf("entry %d after the first: %v, replayed to %d", second, err, o.state.pos)
		}
		if err := o.take(Record{Position: 9, Number: 2, Entry: Entry{Compacted: 1}.encode()}); err != nil {
			t.Error(err)
		}
	}
}

func TestACompactionIsNeverAheadOfTheNewestRevisionAndNeverGoesBack(t *testing.T) {
	s := began(t, &Genesis{Shards: []GenesisShard{{Revision: 6}}})
	for pos, want := range []int64{3, 3, 6} {
		if err := s.replay(int64(3+pos), Entry{Compacted: []int64{3, 2, 100}[pos]}); err != nil || s.compacted != want {
			t.Fatalf("compacted at %d, want %d: %v", s.compacted, want, err)
		}
	}
}

func TestGenesisThatMakesNoSense(t *testing.T) {
	for name, g := range map[string]*Genesis{
		"no shards":            {},
		"revision 0":           {Shards: []GenesisShard{{}}},
		"compacted ahead":      {Shards: []GenesisShard{{Revision: 3, Compacted: 4}}},
		"compacted before":     {Shards: []GenesisShard{{Revision: 3, Compacted: -1}}},
		"internal 1":           {Shards: []GenesisShard{{Revision: 3, Internal: []int64{1}}}},
		"internal ahead":       {Shards: []GenesisShard{{Revision: 3, Internal: []int64{4}}}},
		"internal twice":       {Shards: []GenesisShard{{Revision: 3, Internal: []int64{2, 2}}}},
		"too large":            {Shards: []GenesisShard{{Revision: maxRevision + 1}}},
		"too large in sum":     {Shards: []GenesisShard{{Revision: maxRevision}, {Revision: 1}}},
		"begins beyond it all": {FirstRevision: maxRevision, Shards: []GenesisShard{{Revision: 1}}},
	} {
		if g.check() == nil {
			t.Errorf("%s: passes", name)
		}
	}
}

// FuzzReplay replays entries made of bytes: whatever they say, the state stays one that
// everything can be looked up in, or the log is refused.
func FuzzReplay(f *testing.F) {
	f.Add([]byte{4, 'C', 0, 5, 'C', 1, 7, 'X', 3})
	f.Add([]byte{1, 'C', 0, 255, 'C', 9, 9})
	f.Fuzz(func(t *testing.T, b []byte) {
		if len(b) == 0 {
			return
		}
		g := &Genesis{}
		for i := range 1 + int(b[0]%4) {
			g.Shards = append(g.Shards, GenesisShard{Revision: int64(i + 1)})
		}
		s := began(t, g)
		for pos := int64(3); len(b) >= 3; pos, b = pos+1, b[3:] {
			e := Entry{Cover: []Covered{{int(b[1]), int64(b[2])}}}
			if b[0] == 'X' {
				e = Entry{Compacted: 1 + int64(b[2])}
			}
			if s.replay(pos, e) != nil {
				return
			}
		}
		for g := s.compacted; g <= s.revision+1; g++ {
			for i, at := range s.vector(g) {
				if at < 0 || at > s.covered[i] {
					t.Fatalf("shard %d at %d is %d of %d", i, g, at, s.covered[i])
				}
			}
		}
	})
}
