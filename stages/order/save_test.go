package order

import (
	"testing"
	"time"
)

func TestWhenACheckpointIsDue(t *testing.T) {
	small := runs{{1, 1, 1}}
	large, huge := make(runs, 1600), make(runs, 1_000_000) // never looked into
	for _, c := range []struct {
		name    string
		m       runs
		entries int64
		since   time.Duration
		want    bool
	}{
		{"nothing to save", small, 0, time.Hour, false},
		{"a few entries", small, 49, time.Minute, false},
		{"enough", small, 50, 0, true},
		{"enough, but the map is large", large, 99, 0, false},
		{"enough even for that", large, 100, 0, true},
		{"as many as there may be", huge, mostEntries, 0, true},
		{"one, for a long time", large, 1, saveAfter + time.Second, true},
	} {
		o := New(Options{CheckpointEntries: 50})
		o.state = &state{maps: []runs{c.m}}
		o.written.Store(c.entries)
		s := saves{order: o, since: time.Now().Add(-c.since)}
		if got := s.now(); got != c.want {
			t.Errorf("%s: %t", c.name, got)
		}
		if c.entries == 0 && time.Since(s.since) > time.Minute {
			t.Errorf("%s: it counts from %v", c.name, s.since)
		}
	}
}
