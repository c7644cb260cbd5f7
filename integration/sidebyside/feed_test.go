package main

import (
	"encoding/binary"
	"testing"
	"time"
)

func TestAFeedTakesEachWritersEventsOnceAndInOrder(t *testing.T) {
	f := &feed{t: &target{shards: make([]member, 3), order: &member{}}, epoch: 7}
	event := func(v *viewer, writer, n uint64, revision int64) error {
		value := make([]byte, valueSize)
		for i, x := range []uint64{f.epoch, n, uint64(time.Second), writer} {
			binary.BigEndian.PutUint64(value[8*i:], x)
		}
		_, err := f.event(v, value, revision, 3*time.Second)
		return err
	}
	type step struct {
		writer, n uint64
		revision  int64
	}
	for name, c := range map[string]struct {
		steps []step
		wrong bool
	}{
		"two writers":          {[]step{{0, 0, 5}, {1, 0, 6}, {0, 1, 7}}, false},
		"one is missing":       {[]step{{0, 0, 5}, {0, 2, 6}}, true},
		"one comes twice":      {[]step{{0, 0, 5}, {0, 0, 6}}, true},
		"a revision goes back": {[]step{{0, 0, 6}, {1, 0, 5}}, true},
		"no such writer":       {[]step{{feedWriters, 0, 5}}, true},
	} {
		v := &viewer{}
		var err error
		for _, s := range c.steps {
			if err == nil {
				err = event(v, s.writer, s.n, s.revision)
			}
		}
		if (err != nil) != c.wrong {
			t.Errorf("%s: %v", name, err)
		}
		if err == nil && (len(v.delays) != len(c.steps) || v.delays[0] != 2*time.Second) {
			t.Errorf("%s: %v", name, v.delays)
		}
	}
}
