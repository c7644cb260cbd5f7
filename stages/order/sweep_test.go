package order

import (
	"context"
	"fmt"
	"maps"
	"math/rand/v2"
	"testing"

	"github.com/sourcegraph/conc"
)

// version is one key's revisions on its shard.
type version struct{ create, mod int64 }

// lives are what one shard held at each of its revisions.
type lives []map[int]version // by shard revision; index 0 is unused

// live makes up what happened on a shard in its revisions: in each of those that has a
// number one key is put or deleted.
func live(rnd *rand.Rand, n *naive, shard int) lives {
	l := make(lives, n.covered[shard]+1)
	l[0] = map[int]version{}
	for rev := int64(1); rev <= n.covered[shard]; rev++ {
		now := maps.Clone(l[rev-1])
		if key := rnd.IntN(4); rev > 1 && n.globals[shard][rev] > 0 {
			if was, ok := now[key]; ok && rnd.IntN(3) == 0 {
				delete(now, key)
			} else if ok {
				now[key] = version{was.create, rev}
			} else {
				now[key] = version{rev, rev}
			}
		}
		l[rev] = now
	}
	return l
}

// sweepNow sweeps a state by what was alive at its compaction point.
func sweepNow(t *testing.T, s *state, shards []lives) {
	t.Helper()
	o := &Order{state: s, sweeps: newSweeps()}
	olds := o.oldRuns(s, s.compacted)
	for i, at := range s.vector(max(1, s.compacted)) {
		for _, v := range shards[i][at] {
			olds[i].refer(v.create)
			olds[i].refer(v.mod)
		}
	}
	if !o.drop(s, s.compacted, olds) {
		t.Fatal("the state is not that of its own order")
	}
}

// Whatever a legal request at or after the compaction point can ask a swept map, it says
// what the plain map of everything says.
func TestASweepChangesNoLookupThatIsLegal(t *testing.T) {
	dropped := 0
	for seed := range uint64(400) {
		rnd := rand.New(rand.NewPCG(seed, 8))
		s, n := randomState(t, rnd, 5+rnd.IntN(40))
		if err := s.replay(s.pos+1, Entry{Compacted: 1 + rnd.Int64N(s.revision)}); err != nil {
			t.Fatal(err)
		}
		before := s.runs()
		shards := make([]lives, len(s.maps))
		for i := range shards {
			shards[i] = live(rnd, n, i)
		}
		sweepNow(t, s, shards)
		dropped += before - s.runs()
		for i := range shards {
			where := fmt.Sprintf("seed %d, shard %d, compacted at %d", seed, i, s.compacted)
			legalMoments(t, where, s, n, i)
			for rev := s.at(i, max(1, s.compacted)); rev <= n.covered[i]; rev++ {
				for _, v := range shards[i][rev] {
					legalVersion(t, where, s, n, i, v)
				}
			}
		}
	}
	if dropped < 1000 {
		t.Fatalf("only %d runs were dropped in all: this shows nothing", dropped)
	}
}

// legalMoments: where a shard is read and watched from, at and after the compaction point.
func legalMoments(t *testing.T, where string, s *state, n *naive, i int) {
	t.Helper()
	for g := max(1, s.compacted); g <= n.revision+1; g++ {
		if got, want := s.first(i, g), n.first(i, g); got != want {
			t.Fatalf("%s: first(%d) = %d, want %d", where, g, got, want)
		}
		if got, want := s.maps[i].floor(g), n.floor(i, g); got != want {
			t.Fatalf("%s: floor(%d) = %d, want %d", where, g, got, want)
		}
		rev, ok := s.maps[i].local(g)
		if want := n.first(i, g); ok != (n.globals[i][want] == g) || ok && rev != want {
			t.Fatalf("%s: local(%d) = %d, %t, want %d", where, g, rev, ok, want)
		}
	}
	point := n.floor(i, max(1, s.compacted))
	for rev := int64(1); rev <= n.covered[i]; rev++ {
		got, want := s.complete(i, rev), n.complete(i, rev)
		if rev >= point && got != want || rev < point && got > s.compacted {
			t.Fatalf("%s: complete(%d) = %d, want %d", where, rev, got, want)
		}
	}
}

// legalVersion: a key's revisions out, and compares and filters of any revision on it in.
func legalVersion(t *testing.T, where string, s *state, n *naive, i int, v version) {
	t.Helper()
	for _, rev := range []int64{v.create, v.mod} {
		global := n.globals[i][rev]
		if got, exact := s.global(i, rev); got != global || !exact {
			t.Fatalf("%s: revision %d is %d, %t, want %d", where, rev, got, exact, global)
		}
		m := s.maps[i]
		for g := int64(1); g <= n.revision; g++ {
			local, ok := m.local(g)
			if (rev > m.floor(g)) != (global > g) || (rev < m.floor(g-1)+1) != (global < g) || (ok && rev == local) != (global == g) {
				t.Fatalf("%s: revision %d, which is %d, compares differently with %d", where, rev, global, g)
			}
		}
	}
}

// C7 (b): on a shard that is idle the run that holds its revision at the compaction point
// stays, though no key refers to it.
func TestASweepKeepsTheFloorOfAnIdleShard(t *testing.T) {
	s := began(t, &Genesis{Shards: []GenesisShard{{Revision: 1}, {Revision: 1}}})
	cover := func(shard int, rev int64) {
		if err := s.replay(s.pos+1, Entry{Cover: []Covered{{shard, rev}}}); err != nil {
			t.Fatal(err)
		}
	}
	for rev := int64(2); rev <= 5; rev++ { // the last one on shard 0 is a tombstone
		cover(0, rev)
		cover(1, rev)
	}
	cover(1, 6)
	if err := s.replay(s.pos+1, Entry{Compacted: s.revision}); err != nil {
		t.Fatal(err)
	}
	before := s.vector(s.revision)
	sweepNow(t, s, []lives{{nil, nil, nil, nil, nil, {}}, {nil, nil, nil, nil, nil, nil, {1: {6, 6}}}})
	if got := s.maps[0].floor(s.revision); got != 5 || len(s.maps[0]) != 1 || len(s.maps[1]) != 1 {
		t.Fatalf("the floor is %d, the runs are %v", got, s.maps)
	}
	if after := s.vector(s.revision); after[0] != before[0] || after[1] != before[1] {
		t.Fatalf("read at %v, before at %v", after, before)
	}
	cover(1, 7)
}

// What is dropped while a state goes on does not disturb the runs that come meanwhile.
func TestDropKeepsWhatCameMeanwhile(t *testing.T) {
	s := began(t, &Genesis{Shards: []GenesisShard{{Revision: 1}, {Revision: 1}}})
	o := &Order{state: s, sweeps: newSweeps()}
	for rev := int64(2); rev < 100; rev++ {
		for i := range 2 {
			if err := s.replay(s.pos+1, Entry{Cover: []Covered{{i, rev}}}); err != nil {
				t.Fatal(err)
			}
		}
	}
	olds := o.oldRuns(s, 50)
	for i := range 2 {
		if err := s.replay(s.pos+1, Entry{Cover: []Covered{{i, 120}}}); err != nil {
			t.Fatal(err)
		}
	}
	want, left := s.vector(s.revision-3), s.runs()-len(olds[0].runs)-len(olds[1].runs)
	if !o.drop(s, 50, olds) || o.drop(&state{maps: s.maps}, 50, olds) {
		t.Fatal("a state is taken for another")
	}
	if got := s.vector(s.revision - 3); got[0] != want[0] || got[1] != want[1] || s.runs() != left || len(olds[0].runs) < 20 || s.maps[0].floor(49) != 0 {
		t.Fatalf("at %v, before at %v, with %d runs", got, want, s.runs())
	}
}

// Sweeps, checkpoints and lookups go on beside the replaying of the log, and read without
// its lock what never changes. The race detector judges this.
func TestSweepsAndCheckpointsBesideTheReplaying(t *testing.T) {
	s := began(t, &Genesis{Shards: []GenesisShard{{Revision: 1}, {Revision: 1}, {Revision: 1}}})
	o := New(Options{})
	o.state = s
	const writes = 3000
	ctx, cancel := context.WithCancel(t.Context())
	var wg conc.WaitGroup
	beside := func(work func(rnd *rand.Rand)) {
		wg.Go(func() {
			for rnd := rand.New(rand.NewPCG(1, 11)); ctx.Err() == nil; {
				work(rnd)
			}
		})
	}
	sweeps := 0
	beside(func(rnd *rand.Rand) {
		point := o.Compacted()
		olds := o.oldRuns(s, point)
		for _, old := range olds {
			for range 10 {
				old.refer(1 + rnd.Int64N(writes))
			}
		}
		if !o.drop(s, point, olds) {
			t.Error("not dropped")
		}
		sweeps++
	})
	beside(func(*rand.Rand) {
		o.mu.RLock()
		f := o.state.freeze()
		o.mu.RUnlock()
		if _, err := decodeState(f.encode()); err != nil {
			t.Error(err)
		}
	})
	beside(func(rnd *rand.Rand) {
		cut := o.Replayed()
		for i, at := range cut.At {
			g := o.Revision(i, at)
			wrong := g > cut.Revision || o.First(i, g) != at || o.Complete(i, at) < cut.Revision
			if wrong && o.Compacted() == cut.Compacted { // or it is no longer legal to ask
				t.Errorf("shard %d at %d, which is %d of %d", i, at, g, cut.Revision)
			}
		}
	})
	rnd, at := rand.New(rand.NewPCG(1, 12)), []int64{1, 1, 1}
	for n := int64(2); n < 2+writes; n++ {
		i := rnd.IntN(len(at))
		at[i]++
		e := Entry{Cover: []Covered{{i, at[i]}}}
		if n%50 == 0 {
			e = Entry{Compacted: s.revision - 20}
			at[i]--
		}
		if err := o.take(Record{Position: n + 10, Entry: e.encode()}); err != nil {
			t.Fatal(err)
		}
	}
	cancel()
	wg.Wait()
	point := o.Compacted()
	o.drop(s, point, o.oldRuns(s, point)) // those beside may have seen an old compaction last
	if sweeps == 0 || o.Runs() > writes/4 || s.revision != 1+writes-writes/50 {
		t.Fatalf("%d sweeps, %d runs are left, at %d", sweeps, o.Runs(), s.revision)
	}
}
