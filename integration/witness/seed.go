package witness

import (
	"os"
	"strconv"
	"testing"
	"time"
)

// number reads a number from the environment.
func number(t testing.TB, name string, otherwise uint64) uint64 {
	t.Helper()
	text := os.Getenv(name)
	if text == "" {
		return otherwise
	}
	n, err := strconv.ParseUint(text, 10, 64)
	if err != nil {
		t.Fatalf("%s: %v", name, err)
	}
	return n
}

// Seed is random, or SHARDER_SEED, to repeat the choices of a run that failed.
func Seed(t testing.TB) uint64 {
	t.Helper()
	n := number(t, "SHARDER_SEED", uint64(time.Now().UnixNano()))
	t.Logf("SHARDER_SEED=%d repeats the choices of this run", n)
	return n
}

// Rounds is how often everything goes wrong: SHARDER_ROUNDS, for a longer soak.
func Rounds(t testing.TB) int { return int(number(t, "SHARDER_ROUNDS", 1)) }
