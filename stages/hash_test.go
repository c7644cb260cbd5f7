package stages

import (
	"fmt"
	"testing"
)

// These keys were spread by the first version. If this test fails, keys that exist
// can no longer be found.
func TestSpreadNeverChanges(t *testing.T) {
	for key, want := range map[string][4]int{ // over 1, 2, 5 and 64 shards
		"":                             {0, 1, 2, 40},
		"a":                            {0, 1, 1, 17},
		"/registry/pods/default/nginx": {0, 1, 1, 11},
		"\x00\xff":                     {0, 0, 0, 58},
	} {
		for i, n := range []int{1, 2, 5, 64} {
			if got := spread([]byte(key), n); got != want[i] {
				t.Errorf("%q over %d: %d, was %d", key, n, got, want[i])
			}
		}
	}
}

func TestSpreadIsEvenAndMovesLittle(t *testing.T) {
	const keys, n = 20000, 8
	per := make([]int, n)
	moved := 0
	for i := range keys {
		key := fmt.Appendf(nil, "/registry/pods/ns/%d", i)
		at := spread(key, n)
		per[at]++
		if next := spread(key, n+1); next != at {
			moved++
			if next != n {
				t.Fatalf("%s moved from %d to %d, not to the new shard", key, at, next)
			}
		}
	}
	for i, got := range per {
		if got < keys/n*9/10 || got > keys/n*11/10 {
			t.Errorf("shard %d has %d of %d keys", i, got, keys)
		}
	}
	if most := keys / (n + 1) * 11 / 10; moved > most {
		t.Errorf("%d keys moved, want at most %d", moved, most)
	}
}

// The values are those of the paper's other implementations.
func TestJumpIsTheJumpHashOfThePaper(t *testing.T) {
	for _, c := range []struct {
		h       uint64
		n, want int
	}{{1, 1, 0}, {42, 57, 43}, {0xDEAD10CC, 1, 0}, {0xDEAD10CC, 666, 361}, {256, 1024, 520}} {
		if got := jump(c.h, c.n); got != c.want {
			t.Errorf("jump(%d, %d) = %d, want %d", c.h, c.n, got, c.want)
		}
	}
}
