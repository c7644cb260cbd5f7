package order

import (
	"fmt"
	"math/rand/v2"
	"os"
	"runtime"
	"strconv"
	"testing"
	"time"

	"github.com/sourcegraph/conc/pool"

	"github.com/sharder/sharder/integration/etcdtest"
	"github.com/sharder/sharder/stages"
	"go.etcd.io/etcd/server/v3/embed"
)

// load is a made-up history of a deployment: cuts, and keys that are written again and
// again, all at random. Nothing of it touches a shard; the states, their checkpoints and
// the etcd that keeps those are real.
type load struct {
	shards, keys, cuts int
	perCut             int // writes that a cut covers
}

// history replays a load. mods are the revisions of the newest write of each key, creates
// those of its first, both by shard.
func (l load) history(tb testing.TB) (s *state, creates, mods [][]int64) {
	rnd := rand.New(rand.NewPCG(1, 9))
	g := &Genesis{Deployment: "00c0ffee00000001"}
	for i := range l.shards {
		g.Shards = append(g.Shards, GenesisShard{Name: fmt.Sprint(i), Revision: 2, Internal: []int64{2}})
	}
	s = &state{}
	creates, mods = make([][]int64, l.shards), make([][]int64, l.shards)
	for i := range l.shards {
		creates[i], mods[i] = make([]int64, l.keys/l.shards+1), make([]int64, l.keys/l.shards+1)
	}
	replay := func(e Entry) {
		if err := s.replay(s.pos+1, e); err != nil {
			tb.Fatal(err)
		}
	}
	replay(Entry{Genesis: g})
	at := make([]int64, l.shards)
	for i := range at {
		at[i] = 2
	}
	for range l.cuts {
		touched := make(map[int]bool, l.perCut)
		for range l.perCut {
			key := rnd.IntN(l.keys)
			shard, k := key%l.shards, key/l.shards
			at[shard]++
			touched[shard] = true
			if creates[shard][k] == 0 {
				creates[shard][k] = at[shard]
			}
			mods[shard][k] = at[shard]
		}
		var cs []Covered
		for i := range l.shards {
			if touched[i] {
				cs = append(cs, Covered{i, at[i]})
			}
		}
		replay(Entry{Cover: cs})
	}
	return s, creates, mods
}

// sweep sweeps a state at its newest revision by the keys of the history.
func (l load) sweep(tb testing.TB, s *state, creates, mods [][]int64) time.Duration {
	if err := s.replay(s.pos+1, Entry{Compacted: s.revision}); err != nil {
		tb.Fatal(err)
	}
	began := time.Now()
	o := &Order{state: s, sweeps: newSweeps()}
	olds := o.oldRuns(s, s.compacted)
	for i := range olds {
		for k := range mods[i] {
			olds[i].refer(creates[i][k])
			olds[i].refer(mods[i][k])
		}
	}
	if !o.drop(s, s.compacted, olds) {
		tb.Fatal("not dropped")
	}
	return time.Since(began)
}

// mapBytes is what the runs of a map take.
func mapBytes(s *state) (n int) {
	for _, m := range s.maps {
		n += 24 * cap(m)
	}
	return n
}

// loads of the figures. The first is one write per cut, the worst there is.
func loads(scale int) []load {
	return []load{
		{shards: 3, keys: 1_000_000 / scale, cuts: 10_000_000 / scale, perCut: 1},
		{shards: 3, keys: 1_000_000 / scale, cuts: 10_000_000 / scale, perCut: 4},
		{shards: 64, keys: 1_000_000 / scale, cuts: 1_000_000 / scale, perCut: 40},
	}
}

// scale is what the figures of the page are divided by here.
func scale() int {
	if full, _ := strconv.ParseBool(os.Getenv("SHARDER_FIGURES")); full {
		return 1
	}
	return 1000
}

// TestFigures prints the figures of docs/order-log.md: a row for each load, before and
// after a sweep. It checks what the page derives from them. SHARDER_FIGURES=1 runs it
// at full size, which takes minutes and gigabytes; otherwise it is a thousandth of that.
func TestFigures(t *testing.T) {
	for _, l := range loads(scale()) {
		began := time.Now()
		s, creates, mods := l.history(t)
		replayed := time.Since(began)
		t.Logf("%d shards, %d keys, %d cuts of %d writes: replayed in %v, %.0f ns an entry, the making up of it included",
			l.shards, l.keys, l.cuts, l.perCut, replayed.Round(time.Millisecond), float64(replayed.Nanoseconds())/float64(l.cuts))
		l.row(t, "before", s)
		took := l.sweep(t, s, creates, mods)
		t.Logf("  swept in %v, without the reading of the keys", took.Round(time.Millisecond))
		l.row(t, "after", s)
		if most := 2*l.keys + 2*l.shards; s.runs() > most {
			t.Errorf("%d runs are left; two for each of %d keys would do", s.runs(), l.keys)
		}
		for i := range mods {
			for k, rev := range mods[i] {
				if _, ok := s.global(i, rev); rev > 0 && !ok {
					t.Fatalf("shard %d, key %d: its revision %d is gone", i, k, rev)
				}
			}
		}
		runtime.GC()
	}
}

// row prints what one state costs: in memory, as a checkpoint, and until a sharder has
// loaded it from a real etcd.
func (l load) row(t *testing.T, when string, s *state) {
	began := time.Now()
	b := s.freeze().encode()
	encoded := time.Since(began)
	began = time.Now()
	if _, err := decodeState(b); err != nil {
		t.Fatal(err)
	}
	decoded := time.Since(began)
	saved, started := startUp(t, s, b)
	t.Logf("  %s: %d runs, %.1f MB of memory; checkpoint %.1f MB, %.1f bytes a run, encoded in %v, decoded in %v; saved to etcd in %v; a sharder is level after %v",
		when, s.runs(), float64(mapBytes(s))/1e6, float64(len(b))/1e6, float64(len(b))/float64(s.runs()),
		encoded.Round(time.Millisecond), decoded.Round(time.Millisecond), saved.Round(time.Millisecond), started.Round(time.Millisecond))
	if got := s.runs(); len(b) > 24*got+1000 {
		t.Errorf("the checkpoint has %d bytes for %d runs: more than the map itself", len(b), got)
	}
}

// startUp saves a checkpoint in an etcd of its own and has a sharder load it.
func startUp(t *testing.T, s *state, text []byte) (saved, started time.Duration) {
	etcd := etcdtest.Start(t, func(cfg *embed.Config) { cfg.QuotaBackendBytes = 4 << 30 })
	defer etcd.Stop()
	j := NewEtcd(etcd.Conn())
	if _, err := j.Create(t.Context(), Entry{Genesis: s.genesis}.encode()); err != nil {
		t.Fatal(err)
	}
	pos, err := j.Position(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	// The position of a made-up log is nobody's; the checkpoint takes that of the real one.
	moved := *s
	moved.pos, moved.number = pos, 1
	if moved.pos != s.pos {
		text = moved.freeze().encode()
	}
	began := time.Now()
	if err := j.Save(t.Context(), Checkpoint{Position: pos, Text: text}); err != nil {
		t.Fatal(err)
	}
	saved = time.Since(began)
	began = time.Now()
	o := New(Options{Journal: j, Shards: make([]*stages.Shard, len(s.maps))})
	if err := o.Load(t.Context()); err != nil {
		t.Fatal(err)
	}
	if started = time.Since(began); o.Runs() != s.runs() || o.Replayed().Revision != s.revision {
		t.Fatalf("loaded %d runs at %d, want %d at %d", o.Runs(), o.Replayed().Revision, s.runs(), s.revision)
	}
	return saved, started
}

// TestFiguresOfTheLog prints how fast a sharder replays what lies behind the checkpoint,
// from a real etcd.
func TestFiguresOfTheLog(t *testing.T) {
	for _, entries := range []int{10_000 / scale(), mostEntries / scale()} {
		j := NewEtcd(etcdtest.Start(t).Conn())
		g := &Genesis{Shards: []GenesisShard{{Revision: 1}, {Revision: 1}, {Revision: 1}}}
		if _, err := j.Create(t.Context(), Entry{Genesis: g}.encode()); err != nil {
			t.Fatal(err)
		}
		p := pool.New().WithErrors().WithMaxGoroutines(64)
		for i := range entries {
			p.Go(func() error {
				_, err := j.Append(t.Context(), Entry{Cover: []Covered{{i % 3, int64(2 + i/3)}}}.encode())
				return err
			})
		}
		if err := p.Wait(); err != nil {
			t.Fatal(err)
		}
		began := time.Now()
		o := New(Options{Journal: j, Shards: make([]*stages.Shard, 3)})
		if err := o.Load(t.Context()); err != nil {
			t.Fatal(err)
		}
		t.Logf("%d entries: a sharder that starts has replayed them after %v", entries, time.Since(began).Round(time.Millisecond))
		if got := o.Replayed().Revision; got != int64(1+entries) {
			t.Fatalf("at %d after %d writes", got, entries)
		}
	}
}

// benchState is a swept state of 1M keys with some history on top.
func benchState(b *testing.B) (*state, [][]int64) {
	l := load{shards: 3, keys: 100_000, cuts: 1_000_000, perCut: 1}
	s, creates, mods := l.history(b)
	l.sweep(b, s, creates, mods)
	return s, mods
}

func BenchmarkLookup(b *testing.B) {
	s, mods := benchState(b)
	rnd := rand.New(rand.NewPCG(1, 10))
	b.Run("out", func(b *testing.B) {
		for b.Loop() {
			s.global(1, mods[1][rnd.IntN(len(mods[1])-1)])
		}
	})
	b.Run("in", func(b *testing.B) {
		for b.Loop() {
			s.first(1, 1+rnd.Int64N(s.revision))
		}
	})
	b.Run("vector", func(b *testing.B) {
		for b.Loop() {
			s.vector(s.compacted)
		}
	})
}

func BenchmarkReplay(b *testing.B) {
	s := &state{}
	if err := s.replay(1, Entry{Genesis: &Genesis{Shards: []GenesisShard{{Revision: 1}, {Revision: 1}, {Revision: 1}}}}); err != nil {
		b.Fatal(err)
	}
	entries := make([][]byte, b.N)
	for i := range entries {
		entries[i] = Entry{Cover: []Covered{{i % 3, int64(2 + i)}}}.encode()
	}
	b.ReportAllocs()
	b.ResetTimer()
	for i, text := range entries {
		e, err := decodeEntry(text)
		if err == nil {
			err = s.replay(int64(2+i), e)
		}
		if err != nil {
			b.Fatal(err)
		}
	}
}

func BenchmarkCheckpoint(b *testing.B) {
	s, _ := benchState(b)
	text := s.freeze().encode()
	b.Run("encode", func(b *testing.B) {
		b.SetBytes(int64(len(text)))
		for b.Loop() {
			s.freeze().encode()
		}
	})
	b.Run("decode", func(b *testing.B) {
		b.SetBytes(int64(len(text)))
		for b.Loop() {
			if _, err := decodeState(text); err != nil {
				b.Fatal(err)
			}
		}
	})
}
