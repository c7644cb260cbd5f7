package main

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"io"
	"math"
	"os"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/sharder/sharder/integration/leaks"
)

func TestMain(m *testing.M) {
	var err error
	if buildDir, err = os.MkdirTemp("", "sidebyside-test-"); err != nil {
		panic(err)
	}
	leaks.Main(m, goleak.Cleanup(func(code int) {
		_ = os.RemoveAll(buildDir)
		os.Exit(code)
	}))
}

// small is a plan in which every workload does its work for a moment. Its leases outlast
// that on a machine that is busy with something else.
var small = plan{cell: 100 * time.Millisecond, rounds: 1, clients: 4, watchers: 40, ttl: 5}

// built are the programs, in a directory of their own, for all tests.
var (
	buildDir string
	built    = sync.OnceValues(func() (binaries, error) { return buildBinaries(context.Background(), buildDir, 0) })
)

// smallBuilt is small with programs that are built.
func smallBuilt(t *testing.T) plan {
	t.Helper()
	p := small
	var err error
	if p.built, err = built(); err != nil {
		t.Fatal(err)
	}
	return p
}

// stood gives a stand that is gone, processes and files, when the test ends.
func stood(t *testing.T) *stand {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 5*time.Minute)
	t.Cleanup(cancel)
	s, err := newStand(ctx, smallBuilt(t), sideBySide, io.Discard)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		s.stop()
		for _, p := range slices.Concat(s.etcds, s.proxies) {
			if p.ended() == nil {
				t.Errorf("%s still runs", p.name)
			}
		}
		if _, err := os.Stat(s.dir); !os.IsNotExist(err) {
			t.Errorf("the directory is still there: %v", err)
		}
	})
	return s
}

func TestEveryWorkloadDoesItsWorkOnEveryTarget(t *testing.T) {
	if testing.Short() {
		t.Skip("builds and starts twelve processes")
	}
	s := stood(t)
	ctx, cancel := context.WithTimeout(t.Context(), 5*time.Minute)
	defer cancel()
	b := &book{plan: small, begun: s.snapshot()}
	if err := b.measure(ctx, s.targets, workloads, io.Discard); err != nil {
		t.Fatal(err)
	}
	if err := b.failures(); err != nil {
		t.Fatal(err)
	}
	for _, row := range b.rows {
		for i, c := range row.cells {
			if !row.workload.runs(s.targets[i]) {
				continue
			}
			r := c.rounds[0]
			if r[rate] <= 0 && r[p50] <= 0 {
				t.Errorf("%s on %s measured nothing: %v", row.workload.name, c.target, r)
			}
			if r[p99] < r[p50] {
				t.Errorf("%s on %s: p99 %v below p50 %v", row.workload.name, c.target, r[p99], r[p50])
			}
		}
	}
	b.ended = s.snapshot()
	checkUpstream(t, b)
	checkTables(t, b, s.targets)
}

// checkUpstream holds what the etcds counted against what is known of it: etcd serves
// each watcher and each keep-alive, a sharder opens few watchers for all.
func checkUpstream(t *testing.T, b *book) {
	t.Helper()
	for _, row := range b.rows {
		least, most := 1.0, float64(small.watchers)/4
		direct := float64(small.watchers)
		switch row.workload.name {
		case "watch-paced", "watch-full":
		case "keepalive-N":
			least, most, direct = 0.01, 1, 1
		default:
			continue
		}
		for _, c := range row.cells {
			n := c.rounds[0][upstream]
			// What a proxy of the same etcd still had, or has opened meanwhile, may be among them.
			if c.target == "etcd" && math.Abs(n-direct) > direct/10 {
				t.Errorf("%s: etcd counts %v, not %v", row.workload.name, n, direct)
			}
			if strings.HasPrefix(c.target, "sharder") && (n < least || n > most) {
				t.Errorf("%s: %v at etcd through %s, not %v to %v", row.workload.name, n, c.target, least, most)
			}
		}
	}
}

// checkTables looks for every workload in what is printed.
func checkTables(t *testing.T, b *book, targets []*target) {
	t.Helper()
	var out bytes.Buffer
	b.print(&out)
	for _, w := range workloads {
		run, least := 0, 0
		for _, t := range targets {
			if w.runs(t) {
				run++
			}
		}
		switch {
		case run > 1: // a number for each, and ratios
			least = 3
		case run == 1:
			least = 1
		}
		if n := strings.Count(out.String(), "| "+w.name+" |"); n < least {
			t.Errorf("%s is in %d lines of the tables:\n%s", w.name, n, out.String())
		}
	}
	if strings.Contains(out.String(), "NaN") {
		t.Errorf("the tables have holes:\n%s", out.String())
	}
}

func TestGatewaysAreMeasured(t *testing.T) {
	if testing.Short() {
		t.Skip("builds and starts three processes")
	}
	ctx, cancel := context.WithTimeout(t.Context(), 5*time.Minute)
	defer cancel()
	s, err := newStand(ctx, smallBuilt(t), passingOn(nil), io.Discard)
	if err != nil {
		t.Fatal(err)
	}
	defer s.stop()
	chosen, err := choose(workloads, "put-1,idle")
	if err != nil {
		t.Fatal(err)
	}
	b := &book{plan: small, begun: s.snapshot()}
	if err := errors.Join(b.measure(ctx, s.targets, chosen, io.Discard), b.failures()); err != nil {
		t.Fatal(err)
	}
	for _, c := range b.rows[1].cells {
		if c.target != "etcd" && c.rounds[0][memory] <= 0 {
			t.Errorf("%s: %v", c.target, c.rounds)
		}
	}
}

func TestOtherBuildsStandBesideTheFirst(t *testing.T) {
	if testing.Short() {
		t.Skip("builds and starts processes")
	}
	for text, want := range map[string]string{"x": "not name=path", "=x": "not name=path", "a=": "not name=path", "a=/x,b": "not name=path"} {
		if _, err := parseBuilds(text); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("-builds %s: %v", text, err)
		}
	}
	ctx, cancel := context.WithTimeout(t.Context(), 5*time.Minute)
	defer cancel()
	builds, err := parseBuilds("before=" + smallBuilt(t).built.sharder)
	if err != nil {
		t.Fatal(err)
	}
	s, err := newStand(ctx, small, oneHop(builds), io.Discard)
	if err != nil {
		t.Fatal(err)
	}
	defer s.stop()
	chosen, err := choose(workloads, "put-N")
	if err != nil {
		t.Fatal(err)
	}
	b := &book{plan: small, begun: s.snapshot()}
	if err := errors.Join(b.measure(ctx, s.targets, chosen, io.Discard), b.failures()); err != nil {
		t.Fatal(err)
	}
	var out bytes.Buffer
	b.ended = s.snapshot()
	b.print(&out)
	for _, want := range []string{"before : etcd", "before : grpc-proxy", "proxy, CPU of a put", "MiB in front"} {
		if !strings.Contains(out.String(), want) {
			t.Errorf("no %q in\n%s", want, out.String())
		}
	}
}

func TestAStandThatCannotBeSetUpLeavesNothing(t *testing.T) {
	t.Setenv("TMPDIR", t.TempDir())
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := newStand(ctx, small, sideBySide, io.Discard); err == nil {
		t.Fatal("a stand was set up after its time")
	}
	left, err := os.ReadDir(os.Getenv("TMPDIR"))
	if err != nil || len(left) > 0 {
		t.Fatal(left, err)
	}
}

func TestAnEventThatIsMissingTwiceOrForeignIsAnError(t *testing.T) {
	event := func(f *fanout, n uint64) []byte {
		value := make([]byte, valueSize)
		binary.BigEndian.PutUint64(value, f.epoch)
		binary.BigEndian.PutUint64(value[8:], n)
		return value
	}
	for name, numbers := range map[string][]uint64{"missing": {0, 2}, "twice": {0, 0}, "first missing": {1}} {
		f := newFanout(nil, 1)
		var err error
		for _, n := range numbers {
			if err == nil {
				err = f.event(&receiver{next: uint64(f.events.Load())}, event(f, n), 0)
			}
		}
		if err == nil {
			t.Errorf("%s: %v were taken", name, numbers)
		}
	}
	f := newFanout(nil, 1)
	if err := f.event(&receiver{}, event(newFanout(nil, 1), 0), 0); err == nil {
		t.Error("another cell's event was taken")
	}
	if err := f.event(&receiver{}, event(f, 0), 0); err != nil {
		t.Error(err)
	}
}

func TestRatiosCompareCellsOfTheSameRound(t *testing.T) {
	base := cell{rounds: []result{{rate: 10}, {rate: 100}, nil, {rate: 4}}}
	other := cell{rounds: []result{{rate: 5}, {rate: 20}, {rate: 7}, nil}}
	if got := other.ratios(base, rate); !slices.Equal(got, []float64{0.2, 0.5}) {
		t.Fatal(got)
	}
	if got, want := spread(other.ratios(base, rate)), "**0.35** (0.20–0.50)"; got != want {
		t.Fatalf("%s, not %s", got, want)
	}
}

func TestQuantilesAreSamplesThatHappened(t *testing.T) {
	r := result{}
	var samples []time.Duration
	for i := range 200 {
		samples = append(samples, time.Duration(200-i)*time.Microsecond)
	}
	r.latency(samples)
	if r[p50] != 100 || r[p99] != 198 {
		t.Fatal(r)
	}
	if median([]float64{3, 1, 2}) != 2 || median([]float64{4, 1}) != 2.5 {
		t.Fatal("median")
	}
}

func TestAWorkloadThatDoesNotExistIsRefusedBeforeAnythingStarts(t *testing.T) {
	err := run(t.Context(), []string{"-only", "gets"}, io.Discard, io.Discard)
	if err == nil || !strings.Contains(err.Error(), "there are get-1") {
		t.Fatal(err)
	}
	chosen, err := choose(workloads, "watch-*,get-1")
	if err != nil || names(chosen) != "get-1 watch-paced watch-full" {
		t.Fatal(names(chosen), err)
	}
}
