package order

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"reflect"
	"slices"
	"testing"
)

// played is a log about batches with what really happened on the shards.
type played struct {
	t     *testing.T
	rnd   *rand.Rand
	s     *state
	rev   []int64                // by shard, its newest revision
	event []map[int64]bool       // by shard, the revisions that have events of clients
	own   []map[int64]bool       // by shard, sharder's own
	fence []map[int64]int64      // by shard and batch
	ends  map[int64]map[int]End  // of the batches that are applied
	want  map[string]int64       // by shard and revision, the number it must have
	found map[int64]map[int]bool // by number, the shards that must have it
}

func newPlayed(t *testing.T, rnd *rand.Rand, shards int) *played {
	p := &played{t: t, rnd: rnd, s: &state{}, ends: map[int64]map[int]End{}, want: map[string]int64{}, found: map[int64]map[int]bool{}}
	g := &Genesis{Deployment: "00c0ffee00000001", Fingerprint: "f"}
	for i := range shards {
		g.Shards = append(g.Shards, GenesisShard{Name: string(rune('a' + i)), Revision: 1})
		p.rev, p.event, p.own = append(p.rev, 1), append(p.event, map[int64]bool{}), append(p.own, map[int64]bool{})
		p.fence = append(p.fence, map[int64]int64{})
	}
	p.replay(Entry{Genesis: g})
	return p
}

func (p *played) replay(e Entry) {
	p.t.Helper()
	stored, err := decodeEntry(e.encode())
	if err != nil {
		p.t.Fatal(err)
	}
	if err := p.s.replay(p.s.pos+1+p.rnd.Int64N(2), stored); err != nil {
		p.t.Fatal(err)
	}
}

// write makes a revision on a shard, of a client or of sharder's own.
func (p *played) write(n int, own bool) int64 {
	p.rev[n]++
	p.event[n][p.rev[n]], p.own[n][p.rev[n]] = !own, own
	return p.rev[n]
}

func (p *played) some(of []int) (out []int) {
	for _, n := range of {
		if p.rnd.IntN(2) == 0 {
			out = append(out, n)
		}
	}
	return out
}

func (p *played) shards() (all []int) {
	for n := range p.rev {
		all = append(all, n)
	}
	return all
}

// step does something at random.
func (p *played) step() {
	n := p.rnd.IntN(len(p.rev))
	var b *batch
	if q := p.s.batches.queue; len(q) > 0 {
		b = q[p.rnd.IntN(len(q))]
	}
	switch x := p.rnd.IntN(10); {
	case x < 2:
		if p.fenced(n) {
			return
		}
		p.write(n, false)
	case x < 4:
		p.replay(Entry{Cover: []Covered{{Shard: n, Revision: p.rev[n]}}})
	case x < 5:
		if on := p.some(p.shards()); len(on) > 0 {
			p.replay(Entry{Open: &Open{Nonce: fmt.Sprint(p.rnd.Uint64()), Until: p.s.number + 5 + p.rnd.Int64N(10), Shards: on, Items: p.rnd.IntN(4)}})
		}
	case b == nil:
	case b.Phase == queued && x < 6:
		p.replay(Entry{Decided: &Decided{ID: b.ID, RolledBack: true}})
	case b.Phase == active:
		p.decide(b)
	case b.Phase > active:
		p.close(b)
	}
}

// fenced tells whether a fence stands on the shard.
func (p *played) fenced(n int) bool {
	b := p.s.batches.pinned(n)
	return b != nil && p.fence[n][b.ID] > 0 && p.ends[b.ID][n].Revision == 0
}

func (p *played) decide(b *batch) {
	if b.pin() {
		p.replay(Entry{Closed: &Closed{ID: b.ID, Ends: []End{{Shard: b.Left[0]}}}})
		return
	}
	d := &Decided{ID: b.ID, RolledBack: p.rnd.IntN(4) == 0}
	for _, n := range b.Shards {
		if p.rnd.IntN(3) > 0 || !d.RolledBack {
			p.fence[n][b.ID] = p.write(n, true)
		}
		d.At = append(d.At, Covered{n, p.fence[n][b.ID]})
	}
	if d.RolledBack {
		d.At = nil
		p.replay(Entry{Decided: d})
		return
	}
	for range b.Items {
		d.Items = append(d.Items, Outcome{Writes: p.some(b.Shards)})
	}
	if p.rnd.IntN(2) == 0 {
		p.replay(Entry{Fenced: &Fenced{ID: b.ID, At: d.At}})
	}
	p.replay(Entry{Decided: d})
}

func (p *played) close(b *batch) {
	if p.ends[b.ID] == nil {
		p.ends[b.ID] = map[int]End{}
	}
	c := &Closed{ID: b.ID}
	for _, n := range p.some(b.Shards) {
		if _, done := p.ends[b.ID][n]; !done {
			p.ends[b.ID][n] = p.apply(b, n)
		}
		c.Ends = append(c.Ends, p.ends[b.ID][n])
	}
	if len(c.Ends) > 0 {
		p.replay(Entry{Closed: c})
	}
}

// apply does on a shard what a batch has to do there.
func (p *played) apply(b *batch, n int) End {
	e := End{Shard: n, Fence: p.fence[n][b.ID]}
	if b.Phase == decided {
		for _, item := range b.writers(n) {
			g := b.revision(item)
			if p.rnd.IntN(8) == 0 {
				p.want[fmt.Sprint(n, p.write(n, false))] = g // past all sharders
			}
			rev := p.write(n, false)
			p.want[fmt.Sprint(n, rev)] = g
			e.Steps = append(e.Steps, rev)
			if p.found[g] == nil {
				p.found[g] = map[int]bool{}
			}
			p.found[g][n] = true
		}
	}
	if e.Revision = p.rev[n]; len(e.Steps) == 0 || p.rnd.IntN(2) == 0 {
		e.Revision = p.write(n, true)
	}
	return e
}

// finish closes all, covers all, and checks the numbers.
func (p *played) finish() {
	for len(p.s.batches.queue) > 0 {
		if b := p.s.batches.queue[0]; b.Phase == active {
			p.decide(b)
		} else {
			p.close(b)
		}
	}
	for n := range p.rev {
		p.replay(Entry{Cover: []Covered{{Shard: n, Revision: p.rev[n]}}})
	}
	numbers := map[int64]map[int]bool{}
	for n := range p.rev {
		last := int64(0)
		for rev := int64(2); rev <= p.rev[n]; rev++ {
			g, exact := p.s.global(n, rev)
			if exact != p.event[n][rev] {
				p.t.Fatalf("shard %d: revision %d has a number: %v, an event: %v", n, rev, exact, p.event[n][rev])
			}
			if !exact {
				continue
			}
			if want, ok := p.want[fmt.Sprint(n, rev)]; g < last || ok && g != want || !ok && (g == last || numbers[g] != nil) {
				p.t.Fatalf("shard %d: revision %d has the number %d, the one before %d; wanted %d", n, rev, g, last, want)
			}
			if last = g; numbers[g] == nil {
				numbers[g] = map[int]bool{}
			}
			numbers[g][n] = true
		}
	}
	for g := int64(2); g <= p.s.revision; g++ {
		if numbers[g] == nil || p.found[g] != nil && !reflect.DeepEqual(numbers[g], p.found[g]) {
			p.t.Fatalf("number %d is on shards %v, wanted %v", g, numbers[g], p.found[g])
		}
	}
}

// Whatever batches do and however far they came: every revision with an event has one
// number, those of one transaction the same on all its shards, none is left out, and a
// state that was loaded from a checkpoint on the way is the same as one that was not.
func TestNumbersOfBatchesAreDenseAndShared(t *testing.T) {
	for seed := range uint64(400) {
		rnd := rand.New(rand.NewPCG(seed, 9))
		p := newPlayed(t, rnd, 1+rnd.IntN(4))
		for range rnd.IntN(120) {
			p.step()
			if rnd.IntN(10) > 0 {
				continue
			}
			got, err := decodeState(p.s.freeze().encode())
			if err != nil {
				t.Fatalf("seed %d: %v", seed, err)
			}
			if fmt.Sprintf("%+v", got.freeze()) != fmt.Sprintf("%+v", p.s.freeze()) || !reflect.DeepEqual(got.pending(), p.s.pending()) {
				t.Fatalf("seed %d:\n%+v\n%+v", seed, got, p.s)
			}
			p.s = got
		}
		p.finish()
		if t.Failed() {
			t.Fatalf("seed %d", seed)
		}
	}
}

func TestABatchWaitsForThoseBeforeItOnItsShards(t *testing.T) {
	p := newPlayed(t, rand.New(rand.NewPCG(1, 1)), 4)
	open := func(nonce string, shards ...int) *batch {
		p.replay(Entry{Open: &Open{Nonce: nonce, Until: 1000, Shards: shards, Items: 1}})
		return p.s.batches.byNonce[nonce]
	}
	a, b, c, d := open("a", 0, 1), open("b", 1, 2), open("c", 2, 3), open("d", 0)
	if a.Phase != active || b.Phase != queued || c.Phase != queued || d.Phase != queued {
		t.Fatal(a.Phase, b.Phase, c.Phase, d.Phase)
	}
	if again := open("a", 3); again != a || len(p.s.batches.queue) != 4 {
		t.Fatal("a nonce counts twice")
	}
	p.replay(Entry{Decided: &Decided{ID: b.ID, RolledBack: true}})
	if b.Phase != rolledBack || !b.finished() || c.Phase != active {
		t.Fatal("a batch that waits is not rolled back at once:", b, c)
	}
	p.decide(a)
	for len(a.Left) > 0 {
		p.close(a)
	}
	if d.Phase != active || p.s.batches.pinned(0) != d || p.s.batches.pinned(1) != nil {
		t.Fatal("the next one is not let in:", d)
	}
}

func TestAnOpenThatComesTooLateHasNoEffect(t *testing.T) {
	p := newPlayed(t, rand.New(rand.NewPCG(1, 1)), 2)
	until := p.s.number + 3
	e := Entry{Open: &Open{Nonce: "a", Until: until, Shards: []int{0}, Items: 1}}
	p.replay(e)
	p.replay(Entry{Decided: &Decided{ID: p.s.pos, RolledBack: true}})
	b := p.s.batches.byNonce["a"]
	p.replay(Entry{Closed: &Closed{ID: b.ID, Ends: []End{{Shard: 0, Revision: 2}}}})
	for p.s.number < until+3 {
		if known := p.s.batches.byNonce["a"] != nil; known != (p.s.number <= until) {
			t.Fatalf("at entry %d of %d it is remembered: %v", p.s.number, until, known)
		}
		p.replay(e)
		if len(p.s.batches.queue) > 0 {
			t.Fatalf("at entry %d of %d it is opened again", p.s.number, until)
		}
	}
}

func TestEntriesThatNoBatchCanTakeAreErrorsOrNothing(t *testing.T) {
	p := newPlayed(t, rand.New(rand.NewPCG(1, 1)), 2)
	p.replay(Entry{Open: &Open{Nonce: "a", Until: 1000, Shards: []int{0, 1}, Items: 2}})
	id := p.s.pos
	before := fmt.Sprintf("%+v", p.s.freeze())
	for _, e := range []Entry{
		{Closed: &Closed{ID: id, Ends: []End{{Shard: 0, Revision: 5}}}}, // undecided
		{Decided: &Decided{ID: id + 100, At: []Covered{{0, 2}}}},
		{Fenced: &Fenced{ID: id + 100, At: []Covered{{0, 2}}}},
		{Closed: &Closed{ID: id + 100, Ends: []End{{Shard: 0, Revision: 5}}}},
	} {
		p.replay(e)
		p.s.pos, p.s.number = id, 2
		if now := fmt.Sprintf("%+v", p.s.freeze()); now != before {
			t.Fatalf("%+v:\n%s\n%s", e, before, now)
		}
	}
	for _, e := range []Entry{
		{Decided: &Decided{ID: id, At: []Covered{{0, 2}}, Items: make([]Outcome, 2)}},
		{Decided: &Decided{ID: id, At: []Covered{{0, 2}, {1, 2}}, Items: make([]Outcome, 1)}},
		{Open: &Open{Nonce: "b", Until: 1000, Shards: []int{2}, Items: 1}},
	} {
		c, err := decodeState(p.s.freeze().encode())
		if err != nil {
			t.Fatal(err)
		}
		if err := c.replay(id+1, e); !errors.Is(err, errCorrupt) {
			t.Errorf("%+v: %v", e, err)
		}
	}
	for _, text := range []string{"\x02\x04{", "\x02\x04{}", "\x02\x07{\"id\":5}", "\x02\x06{\"id\":1,\"at\":[{\"shard\":1,\"revision\":2},{\"shard\":0,\"revision\":2}]}"} {
		if _, err := decodeEntry([]byte(text)); !errors.Is(err, errCorrupt) {
			t.Errorf("%q: %v", text, err)
		}
	}
}

// A reader is told of what is given out on a shard and not there yet.
func TestWhatIsGivenOutIsPendingUntilTheShardIsClosed(t *testing.T) {
	p := newPlayed(t, rand.New(rand.NewPCG(1, 1)), 3)
	p.replay(Entry{Open: &Open{Nonce: "a", Until: 1000, Shards: []int{0, 1}, Items: 2}})
	id := p.s.pos
	p.replay(Entry{Decided: &Decided{ID: id, At: []Covered{{0, 2}, {1, 2}}, Items: []Outcome{{Writes: []int{0, 1}}, {Writes: []int{1}}}}})
	if p.s.revision != 3 || !slices.Equal(p.s.pending(), []int64{2, 2, 0}) {
		t.Fatal(p.s.revision, p.s.pending())
	}
	if p.s.complete(0, 2) != 1 || p.s.complete(2, 1) != 3 || p.s.settled(0, 2) || !p.s.settled(0, 1) || !p.s.settled(2, 3) {
		t.Fatal("completeness does not know of what is pending")
	}
	p.replay(Entry{Closed: &Closed{ID: id, Ends: []End{{Shard: 0, Fence: 2, Steps: []int64{3}, Revision: 3}}}})
	if !slices.Equal(p.s.pending(), []int64{0, 2, 0}) || p.s.complete(0, 3) != 3 || p.s.at(0, 2) != 3 {
		t.Fatal(p.s.pending(), p.s.complete(0, 3), p.s.at(0, 2))
	}
	p.replay(Entry{Closed: &Closed{ID: id, Ends: []End{{Shard: 1, Fence: 2, Steps: []int64{3, 4}, Revision: 5}}}})
	if p.s.pending() != nil || p.s.at(1, 2) != 3 || p.s.at(1, 3) != 5 || p.s.covered[1] != 5 {
		t.Fatal(p.s.pending(), p.s.at(1, 2), p.s.at(1, 3), p.s.covered)
	}
}

// A write that found no fence was there before it, and needs not wait for the batch to be
// decided. Whoever only looked may have seen the fence.
func TestAWriteThatFoundNoFenceIsCoveredUnderAPin(t *testing.T) {
	p := newPlayed(t, rand.New(rand.NewPCG(1, 1)), 2)
	cover := func(rev int64, written ...int) int64 {
		p.replay(Entry{Cover: []Covered{{0, rev}, {1, 1}}, Written: written})
		return p.s.covered[0]
	}
	p.replay(Entry{Open: &Open{Nonce: "a", Until: 1000, Shards: []int{0}, Items: 1}})
	a := p.s.batches.byNonce["a"]
	if got := cover(5); got != 1 {
		t.Fatalf("a cover moves a pinned shard to %d", got)
	}
	if got := cover(5, 1); got != 1 {
		t.Fatalf("the mark of another shard moves it to %d", got)
	}
	if got := cover(5, 0); got != 5 || p.s.revision != 5 {
		t.Fatalf("a write before the fence: at %d, revision %d", got, p.s.revision)
	}
	p.replay(Entry{Decided: &Decided{ID: a.ID, At: []Covered{{0, 7}}, Items: []Outcome{{Writes: []int{0}}}}})
	if got := cover(9, 0); got != 7 || p.s.revision != 7 {
		t.Fatalf("decided: at %d, revision %d", got, p.s.revision)
	}
	p.replay(Entry{Closed: &Closed{ID: a.ID, Ends: []End{{Shard: 0, Fence: 7, Steps: []int64{8}, Revision: 8}}}})
	p.replay(Entry{Open: &Open{Nonce: "b", Until: 1000, Shards: []int{0}, Items: 1}})
	p.replay(Entry{Decided: &Decided{ID: p.s.pos, RolledBack: true}})
	if got := cover(12, 0); got != 8 {
		t.Fatalf("rolled back: at %d", got)
	}
	p.replay(Entry{Closed: &Closed{ID: p.s.batches.byNonce["b"].ID, Ends: []End{{Shard: 0, Revision: 9}}}})
	p.replay(Entry{Open: &Open{Nonce: "c", Until: 1000, Shards: []int{0}}})
	if got := cover(12, 0); got != 9 {
		t.Fatalf("under a pin: at %d", got)
	}
}
