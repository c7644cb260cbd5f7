package backend

import (
	"context"
	"errors"
	"testing"
	"time"
)

func TestCallsOfOneTimeShareATermThatIsNotTooShort(t *testing.T) {
	c, err := Open(Options{Name: "a", Endpoints: []string{"127.0.0.1:1"}})
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	const limit = 32 * time.Second
	const grain = limit / termParts
	m := c.roster.Load().seats[0].member
	if term := m.termOf(time.Time{}, limit); term != m.now().life {
		t.Error("a call without a limit has one")
	}
	now := time.Now().Add(limit)
	first := m.termOf(now, limit)
	for after, same := range map[time.Duration]bool{0: true, grain / 2: true, grain: true, grain + 1: false, -1: false, -grain: false} {
		m.term.Store(first.(*term))
		until := now.Add(after)
		got := m.termOf(until, limit)
		end, ok := got.Deadline()
		if !ok || end.Before(until) || end.After(until.Add(grain)) {
			t.Errorf("%v: a call may take from %v to %v of its own limit", after, end.Sub(until), grain)
		}
		if (got == first) != same {
			t.Errorf("%v later, the same term: %v", after, !same)
		}
		if newer := m.term.Load() == got; newer != (after >= 0) {
			t.Errorf("%v later, it is for others: %v", after, newer)
		}
	}
	m.kill(errFrozen)
	if context.Cause(first) != errFrozen || overdue(first) {
		t.Errorf("a term outlives its member: %v", context.Cause(first))
	}
	if next := m.termOf(now, limit); !errors.Is(context.Cause(next), errFrozen) {
		t.Errorf("calls begin on a dead member: %v", context.Cause(next))
	}
	m.answered(finding{})
	if next := m.termOf(now, limit); next.Err() != nil {
		t.Errorf("a member that answers again takes no calls: %v", context.Cause(next))
	}
	m.term.Store(nil)
	short := m.termOf(time.Now().Add(-time.Second), time.Second)
	<-short.Done()
	if !overdue(short) {
		t.Errorf("%v", context.Cause(short))
	}
}
