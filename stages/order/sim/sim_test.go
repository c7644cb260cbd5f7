package sim

import (
	"fmt"
	"maps"
	"os"
	"runtime"
	"runtime/debug"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"

	"github.com/sharder/sharder/integration/leaks"
)

// A run is the same each time as far as Go's scheduler is: on one processor, nearly always.
func TestMain(m *testing.M) {
	runtime.GOMAXPROCS(1)
	debug.SetGCPercent(400)
	leaks.Main(m)
}

// The seeds of a test are 0 to runs-1, or SIM_RUNS many from SIM_SEED on.
func seeds(t *testing.T, runs int) (first, end uint64) {
	number := func(name string, otherwise int) uint64 {
		text := os.Getenv(name)
		if text == "" {
			return uint64(otherwise)
		}
		n, err := strconv.ParseUint(text, 10, 64)
		if err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		return n
	}
	if raceEnabled {
		runs /= 10
	}
	first = number("SIM_SEED", 0)
	if first > 0 {
		runs = 1
	}
	return first, first + number("SIM_RUNS", runs)
}

func TestManyRunsHaveOneOrder(t *testing.T) {
	first, end := seeds(t, 1000)
	sums := &tally{n: map[string]int{}}
	dir := t.TempDir()
	for seed := first; seed < end; seed++ {
		w, err := simulate(t, dir, seed, nil)
		sums.add(w)
		if err != nil {
			t.Fatalf("%s\nseed %d: %v\n%+v\nonce more: SIM_SEED=%d go test -run %s ./stages/order/sim", w.tell(), seed, err, w.plan, seed, t.Name())
		}
	}
	t.Log(sums)
	for _, what := range wanted {
		if end-first >= 100 && sums.n[what] == 0 {
			t.Errorf("in %d runs there was no %q", end-first, what)
		}
	}
}

func TestEveryMutantIsNoticed(t *testing.T) {
	if raceEnabled {
		t.Skip("it is the judge that is tested, which has no goroutines")
	}
	for _, m := range slices.Concat(mutants, batchMutants) {
		t.Run(m.name, func(t *testing.T) {
			t.Parallel()
			dir := t.TempDir()
			for seed := range uint64(2000) {
				if _, err := simulate(t, dir, seed, &m); err != nil {
					t.Logf("%s: seed %d: %.300v", m.why, seed, err)
					return
				}
			}
			t.Errorf("not noticed: %s", m.why)
		})
	}
}

// tally counts what happened in runs, to see that they are about something.
type tally struct {
	mu sync.Mutex
	n  map[string]int
}

// wanted is what has to have happened in some run.
var wanted = []string{
	"runs", "requests", "writes", "reads", "deaths", "unanswered writes", "revisions", "entries", "checkpoints", "sweeps",
	"wide", "step open", "step fenced", "step close", "taken over", "batches of several", "failed", "NotFound", "OutOfRange", "FailedPrecondition", "InvalidArgument", "Unavailable", "DeadlineExceeded",
}

func (s *tally) add(w *world) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.n["runs"]++
	for what, n := range w.counts() {
		s.n[what] += n
	}
}

func (s *tally) String() string {
	var b strings.Builder
	for _, what := range slices.Sorted(maps.Keys(s.n)) {
		fmt.Fprintf(&b, "%s %d, ", what, s.n[what])
	}
	return strings.TrimSuffix(b.String(), ", ")
}

// tell writes down all that was asked and answered.
func (w *world) tell() string {
	var b strings.Builder
	for _, r := range w.history.all {
		fmt.Fprintln(&b, r)
	}
	return b.String()
}
