package scale

import (
	"fmt"
	"os"
	"strconv"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/sharder/sharder/integration/leaks"
)

func TestMain(m *testing.M) { leaks.Main(m) }

// long is how much time is simulated.
func long(t *testing.T) time.Duration {
	text := os.Getenv("SCALE_SECONDS")
	if text == "" {
		return 200 * time.Millisecond
	}
	seconds, err := strconv.ParseFloat(text, 64)
	if err != nil {
		t.Fatal(err)
	}
	return time.Duration(seconds * float64(time.Second))
}

// simulate runs a load in a bubble of its own.
func simulate(t *testing.T, l load) (o outcome) {
	d := long(t)
	synctest.Test(t, func(t *testing.T) { o = l.run(t, d) })
	if len(o.covers) == 0 {
		t.Fatal("nothing was written")
	}
	return o
}

// table prints lines for docs/scale.md.
type table struct{ strings.Builder }

func newTable() *table {
	t := &table{}
	t.WriteString("\n| sharders | writes/s | reads/s | interval | cut p50 ms | cut p99 ms | entries/s | entries per 1000 | bytes an entry | positions/s | read p50 ms | read p99 ms | CPUs at order |\n")
	t.WriteString("|---:|---:|---:|---:|---:|---:|---:|---:|---:|---:|---:|---:|---:|\n")
	return t
}

func (t *table) line(l load, o outcome) {
	ms := func(d time.Duration) string { return fmt.Sprintf("%.1f", d.Seconds()*1000) }
	fmt.Fprintf(t, "| %d | %d | %d | %v | %s | %s | %.0f | %.0f | %.0f | %.0f | %s | %s | %.2f |\n", l.sharders, l.writes, l.reads, l.interval,
		ms(quantile(o.covers, .5)), ms(quantile(o.covers, .99)), o.entries, 1000*o.entries/float64(l.writes), o.size,
		o.positions, ms(quantile(o.reads, .5)), ms(quantile(o.reads, .99)), o.cpus)
}

// The log grows with time and sharders, not with writes: ten times the writes make far
// fewer than ten times the entries, however many sharders there are.
func TestTheLogGrowsWithSharders(t *testing.T) {
	out := newTable()
	for _, sharders := range []int{1, 4, 8, 32} {
		var entries []float64
		for _, writes := range []int{2000, 20000} {
			l := load{sharders: sharders, shards: 64, writes: writes, interval: 2 * time.Millisecond, costs: measured}
			o := simulate(t, l)
			out.line(l, o)
			entries = append(entries, o.entries)
			if most := float64(sharders) / l.interval.Seconds() * 1.1; o.entries > most {
				t.Errorf("%d sharders append %.0f times a second, which is more than %.0f", sharders, o.entries, most)
			}
			if n := len(o.covers); float64(n) < .7*float64(writes)*o.seconds {
				t.Errorf("%d sharders covered %d writes in %.1f s at %d per second", sharders, n, o.seconds, writes)
			}
		}
		if most := 8 * entries[0]; entries[1] > most {
			t.Errorf("%d sharders: %.0f entries a second at ten times the writes, %.0f before", sharders, entries[1], entries[0])
		}
	}
	t.Log(out)
}

// What paces 32 sharders: the interval, and the CPUs of the order cluster.
func TestALongerIntervalSparesTheOrderCluster(t *testing.T) {
	out := newTable()
	var cpus []float64
	for _, interval := range []time.Duration{2, 5, 10, 20} {
		l := load{sharders: 32, shards: 64, writes: 20000, interval: interval * time.Millisecond, costs: measured}
		o := simulate(t, l)
		out.line(l, o)
		cpus = append(cpus, o.cpus)
	}
	t.Log(out)
	if last := cpus[len(cpus)-1]; last > .75*cpus[0] {
		t.Errorf("20 ms between entries take %.2f CPUs, 2 ms %.2f", last, cpus[0])
	}
}

// Reads of the position are shared by those who ask at the same time in one sharder.
func TestReadsOfThePositionAreShared(t *testing.T) {
	out := newTable()
	for _, l := range []load{
		{sharders: 1, reads: 2000}, {sharders: 1, reads: 20000},
		{sharders: 8, reads: 2000}, {sharders: 8, reads: 20000},
		{sharders: 32, reads: 2000}, {sharders: 32, reads: 20000}, {sharders: 32, reads: 200000},
	} {
		l.shards, l.writes, l.interval, l.costs = 64, 2000, 2*time.Millisecond, measured
		o := simulate(t, l)
		out.line(l, o)
		if o.positions > 1.2*float64(l.reads) { // when they come is chance
			t.Errorf("%d sharders: %.0f reads of the position for %d reads", l.sharders, o.positions, l.reads)
		}
		if n := len(o.reads); float64(n) < .7*float64(l.reads)*o.seconds {
			t.Errorf("%d sharders did %d reads in %.1f s at %d per second", l.sharders, n, o.seconds, l.reads)
		}
	}
	t.Log(out)
}
