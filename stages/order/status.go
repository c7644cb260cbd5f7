package order

import (
	"slices"
	"time"
)

// Status is what a process knows of the order at one moment: for metrics, and for people
// who ask how a deployment does. Whoever got it may keep it.
type Status struct {
	Genesis   *Genesis // the first entry; nobody may change it
	Position  int64    // of the newest entry replayed
	Entries   int64    // that the log has had up to there
	Replayed  int64    // how many of them this process has replayed itself
	Takeovers int64    // batches that others opened and this process has driven on
	Revision  int64
	Compacted int64
	Runs      int   // in the map
	Lost      error // why the log as a whole is not believed any more; nil if it is
	Shards    []ShardStatus
	Open      []OpenBatch // those that are in the queue of a shard, oldest first
}

// ShardStatus is what is known of one shard.
type ShardStatus struct {
	Name    string
	Covered int64 // its own revision up to which everything has its place in the order
	Pending int64 // the first global revision that is given out and not there yet; 0 if none
	Alarm   error // why this process refuses it; nil if it doesn't
}

// The states of a batch, as people read them.
const (
	StateQueued     = "queued"      // others are before it on some shard
	StateActive     = "active"      // it is being fenced and evaluated
	StateDecided    = "decided"     // its items have their revisions; shards apply them
	StateRolledBack = "rolled_back" // nothing of it happened; its fences are being removed
)

// States are all of them.
var States = []string{StateQueued, StateActive, StateDecided, StateRolledBack}

// OpenBatch is a batch that is not finished.
type OpenBatch struct {
	ID     int64     // the position of its Open
	State  string    // one of States
	Items  int       // transactions in it; 0 for a pin, under which leases end
	Shards []int     // all of its shards, by number
	Left   []int     // those that it has not left yet
	Behind []int64   // the batches that it waits for, while it is queued
	By     string    // who opened it
	At     time.Time // when, by that one's clock; zero if it didn't say
}

// Status gives the present one, of as much of the log as this process has replayed. It
// may be called at any time; before anything was loaded, loaded is false.
func (o *Order) Status() (s Status, loaded bool) {
	o.mu.RLock()
	defer o.mu.RUnlock()
	st := o.state
	if st == nil || st.genesis == nil {
		return s, false
	}
	s = Status{
		Genesis: st.genesis, Position: st.pos, Entries: st.number, Replayed: o.replayed.Load(), Takeovers: o.takeovers.Load(),
		Revision: st.revision, Compacted: st.compacted, Runs: st.runs(), Open: st.openBatches(),
	}
	if lost := o.lost.Load(); lost != nil {
		s.Lost = *lost
	}
	for i, g := range st.genesis.Shards {
		sh := ShardStatus{Name: g.Name, Covered: st.covered[i], Pending: st.pendingOn(i)}
		if i < len(o.alarms) {
			sh.Alarm = o.alarmed(i)
		}
		s.Shards = append(s.Shards, sh)
	}
	return s, true
}

// openBatches are those in the queues.
func (s *state) openBatches() (open []OpenBatch) {
	for i, b := range s.batches.queue {
		one := OpenBatch{
			ID: b.ID, State: b.Phase.state(), Items: b.Items, By: b.By,
			Shards: slices.Clone(b.Shards), Left: slices.Clone(b.Left),
		}
		if b.At > 0 {
			one.At = time.UnixMilli(b.At)
		}
		for _, before := range s.batches.queue[:i] {
			shares := func(n int) bool { return slices.Contains(before.Left, n) }
			if b.Phase == queued && slices.ContainsFunc(b.Left, shares) {
				one.Behind = append(one.Behind, before.ID)
			}
		}
		open = append(open, one)
	}
	return open
}

// state is the phase for people.
func (p phase) state() string { return States[p] }
