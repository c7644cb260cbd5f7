package order

import (
	"fmt"
	"slices"
	"sort"
)

// phase is how far a batch has come.
type phase int

const (
	queued     phase = iota // others are before it on some shard
	active                  // its shards are pinned
	decided                 // its items have their revisions
	rolledBack              // nothing of it happened
)

func (p phase) String() string {
	return [...]string{"queued", "active", "decided", "rolled back"}[p]
}

// batch is what the log says about one batch of transactions. Its slices are never
// changed in place, so a copy of the struct is a picture of one moment.
type batch struct {
	ID     int64     `json:"id"` // the position of its Open
	Nonce  string    `json:"nonce"`
	Until  int64     `json:"until"`
	Shards []int     `json:"shards"`
	Items  int       `json:"items,omitempty"` // 0: a pin
	By     string    `json:"by,omitempty"`
	At     int64     `json:"at,omitempty"`
	Phase  phase     `json:"phase,omitempty"`
	Left   []int     `json:"left,omitempty"`   // the shards it has not left yet
	Fences []Covered `json:"fences,omitempty"` // known from Decided on
	Base   int64     `json:"base,omitempty"`   // the revision before that of its first item
	Ends   []Outcome `json:"ends,omitempty"`   // of its items, from Decided on
}

func (b *batch) pin() bool { return b.Items == 0 }

// unfenced tells that whoever wrote on its shards and found no fence did so before that stood.
func (b *batch) unfenced() bool { return b.Phase == active && !b.pin() }

// finished tells that it is in no queue any more.
func (b *batch) finished() bool { return len(b.Left) == 0 }

// revision is the global revision of an item of a batch that is decided: its own if it
// wrote, else that of the state it was evaluated on.
func (b *batch) revision(item int) int64 {
	if len(b.Ends[item].Writes) == 0 {
		return b.Base
	}
	g := b.Base
	for _, o := range b.Ends[:item+1] {
		if len(o.Writes) > 0 {
			g++
		}
	}
	return g
}

// writers are the items that make a revision on a shard, ascending.
func (b *batch) writers(shard int) (items []int) {
	for i, o := range b.Ends {
		if slices.Contains(o.Writes, shard) {
			items = append(items, i)
		}
	}
	return items
}

// fence is the revision of its fence on a shard, from Decided on.
func (b *batch) fence(shard int) int64 {
	for _, c := range b.Fences {
		if c.Shard == shard {
			return c.Revision
		}
	}
	return 0
}

// batches are the batches that a state knows: those in the queues of their shards, and
// those remembered so that an Open which comes twice has no effect and whoever opened
// learns the outcome.
type batches struct {
	queue   []*batch          // not finished, by id
	pins    []*batch          // by shard number, the batch that pins it; nil if none does
	byNonce map[string]*batch // all remembered
	recent  []*batch          // the same, by id
	// arranged are the orders of events inside one global revision, where that is not the
	// order of the shards; ascending, from the compaction point on.
	arranged []arrangedAt
}

type arrangedAt struct {
	Revision int64        `json:"revision"`
	Order    *Arrangement `json:"order"`
}

func (bs *batches) find(id int64) *batch {
	for _, b := range bs.queue {
		if b.ID == id {
			return b
		}
	}
	return nil
}

// pinned gives the batch that pins a shard, nil if none does.
func (bs *batches) pinned(shard int) *batch {
	if shard >= len(bs.pins) {
		return nil
	}
	return bs.pins[shard]
}

// activate moves on what is first in all its queues, and says who pins what.
func (bs *batches) activate(shards int) {
	bs.pins = make([]*batch, shards)
	taken := make([]bool, shards)
	for _, b := range bs.queue {
		free := true
		for _, n := range b.Left {
			free = free && !taken[n]
			taken[n] = true
		}
		if b.Phase == queued && free {
			b.Phase = active
		}
		if b.Phase == queued {
			continue
		}
		for _, n := range b.Left {
			bs.pins[n] = b
		}
	}
}

// open puts a batch into the queues, unless the entry comes too late or twice.
func (s *state) open(e *Open) error {
	if last := e.Shards[len(e.Shards)-1]; last >= len(s.covered) {
		return fmt.Errorf("%w: position %d: a batch on shard number %d of %d", errCorrupt, s.pos, last, len(s.covered))
	}
	bs := &s.batches
	if s.number > e.Until || bs.byNonce[e.Nonce] != nil {
		return nil
	}
	bs.add(&batch{
		ID: s.pos, Nonce: e.Nonce, Until: e.Until, Shards: e.Shards, Items: e.Items, By: e.By, At: e.At, Left: e.Shards,
	})
	bs.activate(len(s.covered))
	return nil
}

func (bs *batches) add(b *batch) {
	if bs.byNonce == nil {
		bs.byNonce = map[string]*batch{}
	}
	bs.byNonce[b.Nonce] = b
	bs.recent = append(bs.recent, b)
	if !b.finished() {
		bs.queue = append(bs.queue, b)
	}
}

// forget drops what need not be remembered at an entry's number.
func (bs *batches) forget(number int64) {
	keep := 0
	for keep < len(bs.recent) && bs.recent[keep].finished() && bs.recent[keep].Until < number {
		delete(bs.byNonce, bs.recent[keep].Nonce)
		bs.recent[keep] = nil
		keep++
	}
	bs.recent = bs.recent[keep:]
	if number%forgetEvery == 0 { // one that can't finish must not keep all behind it
		bs.recent = slices.DeleteFunc(slices.Clone(bs.recent), func(b *batch) bool {
			old := b.finished() && b.Until < number
			if old {
				delete(bs.byNonce, b.Nonce)
			}
			return old
		})
	}
}

// forgetEvery is after how many entries all that is remembered is looked through.
const forgetEvery = 1024

// fenced covers what is before the fences of a batch.
func (s *state) fenced(e *Fenced) error {
	b := s.batches.find(e.ID)
	if b == nil || b.Phase != active || b.pin() {
		return nil
	}
	return s.toFences(b, e.At)
}

// toFences moves V to the fences, which have no number themselves.
func (s *state) toFences(b *batch, at []Covered) error {
	if !slices.EqualFunc(at, b.Shards, func(c Covered, n int) bool { return c.Shard == n }) {
		return fmt.Errorf("%w: position %d: batch %d has shards %v, its fences are %v", errCorrupt, s.pos, b.ID, b.Shards, at)
	}
	for _, c := range at {
		if err := s.advance(c.Shard, c.Revision-1); err != nil {
			return err
		}
		s.covered[c.Shard] = max(s.covered[c.Shard], c.Revision)
	}
	return nil
}

// decided gives the items of a batch their revisions, or says that nothing happened.
func (s *state) decided(e *Decided) error {
	b := s.batches.find(e.ID)
	if b == nil || b.pin() && b.Phase == active || b.Phase > active || b.Phase == queued && !e.RolledBack {
		return nil
	}
	if e.RolledBack {
		if b.Phase == queued {
			b.Left = nil // it never had a fence
		}
		b.Phase = rolledBack
		s.leave()
		return nil
	}
	if len(e.Items) != b.Items {
		return fmt.Errorf("%w: position %d: batch %d has %d items, decided are %d", errCorrupt, s.pos, b.ID, b.Items, len(e.Items))
	}
	if err := s.toFences(b, e.At); err != nil {
		return err
	}
	b.Phase, b.Fences, b.Base, b.Ends = decided, e.At, s.revision, e.Items
	for _, o := range e.Items {
		for _, n := range o.Writes {
			if !slices.Contains(b.Shards, n) {
				return fmt.Errorf("%w: position %d: batch %d writes on shard number %d", errCorrupt, s.pos, b.ID, n)
			}
		}
		if len(o.Writes) == 0 {
			continue
		}
		s.revision++
		if o.Order != nil {
			s.batches.arranged = append(s.batches.arranged, arrangedAt{s.revision, o.Order})
		}
	}
	return nil
}

// leave takes what is finished out of the queue.
func (s *state) leave() {
	s.batches.queue = slices.DeleteFunc(slices.Clone(s.batches.queue), (*batch).finished)
	s.batches.activate(len(s.covered))
}

// closed lets shards go that are done with a batch.
func (s *state) closed(e *Closed) error {
	b := s.batches.find(e.ID)
	if b == nil || b.Phase == queued || b.Phase == active && !b.pin() {
		return nil
	}
	for _, end := range e.Ends {
		if !slices.Contains(b.Left, end.Shard) {
			continue
		}
		if err := s.end(b, end); err != nil {
			return err
		}
		b.Left = slices.DeleteFunc(slices.Clone(b.Left), func(n int) bool { return n == end.Shard })
	}
	s.leave()
	return nil
}

// end numbers what a batch has left on a shard. The fence and the closed id are sharder's
// own. Whatever stands before a step and was not written by sharder goes with the step:
// its number is given out already, and numbers ascend on every shard.
func (s *state) end(b *batch, end End) error {
	n := end.Shard
	if b.pin() {
		for _, own := range append([]int64{end.Fence}, end.Steps...) {
			if err := s.advance(n, own-1); err != nil {
				return err
			}
			s.covered[n] = max(s.covered[n], own)
		}
		return s.advance(n, end.Revision)
	}
	if b.Phase == decided {
		writers := b.writers(n)
		if len(end.Steps) != len(writers) {
			return fmt.Errorf("%w: position %d: batch %d has %d steps on shard number %d, closed are %v", errCorrupt, s.pos, b.ID, len(writers), n, end.Steps)
		}
		for k, item := range writers {
			for rev := s.covered[n] + 1; rev <= end.Steps[k]; rev++ {
				s.maps[n] = s.maps[n].add(rev, 1, b.revision(item))
				s.covered[n] = rev
			}
		}
	} else if end.Fence > 0 {
		if err := s.advance(n, end.Fence-1); err != nil {
			return err
		}
		s.covered[n] = max(s.covered[n], end.Fence)
	}
	if end.Revision > s.covered[n] {
		if err := s.advance(n, end.Revision-1); err != nil {
			return err
		}
		s.covered[n] = end.Revision
	}
	return nil
}

// pendingOn is the first global revision that is given out and not there yet on a shard; 0
// if there is none.
func (s *state) pendingOn(shard int) int64 {
	b := s.batches.pinned(shard)
	if b == nil || b.Phase != decided {
		return 0
	}
	if items := b.writers(shard); len(items) > 0 {
		return b.revision(items[0])
	}
	return 0
}

// settled tells whether a shard has all that is at or below a global revision.
func (s *state) settled(shard int, global int64) bool {
	p := s.pendingOn(shard)
	return p == 0 || p > global
}

// pending are the pendingOn of all shards; nil if there are none.
func (s *state) pending() (out []int64) {
	for n, b := range s.batches.pins {
		if b == nil || b.Phase != decided {
			continue
		}
		if p := s.pendingOn(n); p > 0 {
			if out == nil {
				out = make([]int64, len(s.covered))
			}
			out[n] = p
		}
	}
	return out
}

// arrangement is the order of the events of one global revision, nil if that of the
// shards.
func (s *state) arrangement(global int64) *Arrangement {
	all := s.batches.arranged
	i := sort.Search(len(all), func(i int) bool { return all[i].Revision >= global })
	if i < len(all) && all[i].Revision == global {
		return all[i].Order
	}
	return nil
}

// dropArrangements forgets those below a compaction.
func (bs *batches) dropArrangements(compacted int64) {
	i := sort.Search(len(bs.arranged), func(i int) bool { return bs.arranged[i].Revision >= compacted })
	bs.arranged = slices.Clone(bs.arranged[i:])
}
