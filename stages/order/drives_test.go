package order

import (
	"testing"
)

// A coordinator that slept for so long that the log has forgotten its batch must not take
// it for one that never was: then it would be done twice.
func TestABatchThatIsDrivenIsNotForgotten(t *testing.T) {
	o := New(Options{})
	o.state = &state{}
	play := func(e Entry) {
		t.Helper()
		if err := o.take(Record{Position: o.state.pos + 1, Entry: e.encode()}); err != nil {
			t.Fatal(err)
		}
	}
	play(Entry{Genesis: &Genesis{Deployment: "00c0ffee00000001", Shards: []GenesisShard{{Name: "a", Revision: 1}, {Name: "b", Revision: 1}}}})
	for _, nonce := range []string{"mine", "another", "never"} {
		if nonce != "another" {
			o.drives.enter(nonce)
		}
		if nonce == "never" {
			break
		}
		play(Entry{Open: &Open{Nonce: nonce, Until: o.state.number + remembered, Shards: []int{0, 1}, Items: 1}})
		id := o.state.pos
		play(Entry{Decided: &Decided{ID: id, At: []Covered{{0, o.state.covered[0] + 1}, {1, o.state.covered[1] + 1}}, Items: []Outcome{{Writes: []int{0}}}}})
		b := o.batchNamed(nonce)
		play(Entry{Closed: &Closed{ID: id, Ends: []End{
			{Shard: 0, Fence: b.fence(0), Steps: []int64{b.fence(0) + 1}, Revision: b.fence(0) + 1},
			{Shard: 1, Fence: b.fence(1), Revision: b.fence(1) + 1},
		}}})
	}
	for range remembered + 2 {
		play(Entry{Cover: []Covered{{0, o.state.covered[0]}}})
	}
	if b := o.batchNamed("another"); b != nil {
		t.Fatalf("remembered for ever: %+v", b)
	}
	b := o.batchNamed("mine")
	if b == nil || b.Phase != decided || !b.finished() || b.revision(0) != 2 {
		t.Fatalf("what is driven here is %+v", b)
	}
	if o.drives.skipped("mine") || o.drives.skipped("never") {
		t.Fatal("all entries were replayed")
	}
	o.drives.reloaded(&batches{})
	if o.drives.skipped("mine") || !o.drives.skipped("never") {
		t.Fatal("the end of one was seen; of the other nothing is known")
	}
	o.drives.leave("mine")
	if b := o.batchNamed("mine"); b != nil {
		t.Fatalf("kept for nobody: %+v", b)
	}
}
