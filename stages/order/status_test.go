package order

import (
	"math/rand/v2"
	"reflect"
	"testing"
	"time"
)

func TestOpenBatchesSayHowFarTheyAreAndWhomTheyWaitFor(t *testing.T) {
	p := newPlayed(t, rand.New(rand.NewPCG(1, 2)), 4)
	open := func(nonce string, items int, shards ...int) int64 {
		p.replay(Entry{Open: &Open{Nonce: nonce, Until: 100, Shards: shards, Items: items, By: "me", At: 1000}})
		return p.s.pos
	}
	first, second := open("1", 2, 0, 1), open("2", 1, 1, 2)
	third, pin := open("3", 1, 0, 2), open("4", 0, 3)
	at := time.UnixMilli(1000)
	want := []OpenBatch{
		{ID: first, State: StateActive, Items: 2, Shards: []int{0, 1}, Left: []int{0, 1}, By: "me", At: at},
		{ID: second, State: StateQueued, Items: 1, Shards: []int{1, 2}, Left: []int{1, 2}, Behind: []int64{first}, By: "me", At: at},
		{ID: third, State: StateQueued, Items: 1, Shards: []int{0, 2}, Left: []int{0, 2}, Behind: []int64{first, second}, By: "me", At: at},
		{ID: pin, State: StateActive, Shards: []int{3}, Left: []int{3}, By: "me", At: at},
	}
	if have := p.s.openBatches(); !reflect.DeepEqual(have, want) {
		t.Errorf("have %+v\nwant %+v", have, want)
	}
	p.replay(Entry{Decided: &Decided{ID: first, At: []Covered{{0, 2}, {1, 2}}, Items: []Outcome{{Writes: []int{0, 1}}, {}}}})
	p.replay(Entry{Closed: &Closed{ID: first, Ends: []End{{Shard: 1, Fence: 2, Steps: []int64{3}, Revision: 3}}}})
	p.replay(Entry{Decided: &Decided{ID: third, RolledBack: true}})
	want[0].State, want[0].Left = StateDecided, []int{0}
	want[1].State, want[1].Behind = StateActive, nil
	want = append(want[:2], want[3])
	if have := p.s.openBatches(); !reflect.DeepEqual(have, want) {
		t.Errorf("have %+v\nwant %+v", have, want)
	}
}

func TestEveryPhaseHasAState(t *testing.T) {
	for p, want := range map[phase]string{queued: StateQueued, active: StateActive, decided: StateDecided, rolledBack: StateRolledBack} {
		if p.state() != want {
			t.Errorf("%v is %q, want %q", p, p.state(), want)
		}
	}
}

func TestAnOrderThatHasNotLoadedHasNoStatus(t *testing.T) {
	if s, loaded := New(Options{}).Status(); loaded {
		t.Errorf("it has %+v", s)
	}
}
