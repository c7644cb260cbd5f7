package main

import (
	"fmt"
	"io"
	"math"
	"slices"
	"strings"
	"time"
)

// compared are the measures whose ratio to etcd itself says something.
var compared = []measure{rate, p50, p99, upstream}

var titles = [measures]string{
	rate: "per second", p50: "p50 µs", p99: "p99 µs",
	proxyCPU: "CPU µs in front", etcdCPU: "CPU µs at etcd", orderCPU: "CPU µs at order",
	entries: "entries per 1000", positions: "positions per 1000", appends: "entries per second",
	memory: "bytes in front", held: "MiB in front", upstream: "at etcd",
}

// print writes the tables.
func (b *book) print(w io.Writer) {
	p := b.plan
	fmt.Fprintf(w, "%s; %s to %s, load %s at the start and %s at the end.\n", machine(),
		b.begun.at.Format("2006-01-02 15:04"), b.ended.at.Format("15:04"), b.begun.load, b.ended.load)
	if others, ok := b.ended.foreign(b.begun); ok {
		fmt.Fprintf(w, "Other programs used %.2f CPUs meanwhile.\n", others)
	}
	if p.fsync {
		fmt.Fprintf(w, "The etcds wait for the disk: an fsync of 512 bytes took p50 %.0f µs, p99 %.0f µs before anything ran; etcd's log takes %v longer than that.\n", b.disk[p50], b.disk[p99], p.slower)
	}
	fmt.Fprintf(w, "%v per cell, %d rounds, -N is %d clients, %d watchers, %d connections per target.\n\n",
		p.cell.Round(time.Millisecond), p.rounds, p.clients, p.watchers, connections)
	if len(b.rows) == 0 {
		return
	}
	b.printRatios(w)
	b.printFronts(w)
	b.printBars(w)
	fmt.Fprintln(w)
	b.printNumbers(w)
}

// printRatios compares every target with the first one.
func (b *book) printRatios(w io.Writer) {
	head := []string{"workload", "measure"}
	for i, c := range b.rows[0].cells {
		if i > 0 {
			head = append(head, c.target+" : "+b.rows[0].cells[0].target)
		}
	}
	line(w, head)
	rule(w, len(head))
	for _, r := range b.rows {
		for _, m := range compared {
			if len(r.cells[0].values(m)) == 0 {
				continue
			}
			cells := []string{r.workload.name, titles[m]}
			for _, c := range r.cells[1:] {
				cells = append(cells, spread(c.ratios(r.cells[0], m)))
			}
			line(w, cells)
		}
	}
}

// printFronts compares the CPU time of what stands in front with that of the first of them.
func (b *book) printFronts(w io.Writer) {
	begun := false
	for _, r := range b.rows {
		i := slices.IndexFunc(r.cells, func(c cell) bool { return len(c.values(proxyCPU)) > 0 })
		if i < 0 || i+1 == len(r.cells) {
			continue
		}
		if !begun {
			head := []string{"workload", "measure"}
			for _, c := range r.cells[i+1:] {
				head = append(head, c.target+" : "+r.cells[i].target)
			}
			fmt.Fprintln(w)
			line(w, head)
			rule(w, len(head))
			begun = true
		}
		cells := []string{r.workload.name, titles[proxyCPU]}
		for _, c := range r.cells[i+1:] {
			cells = append(cells, spread(c.ratios(r.cells[i], proxyCPU)))
		}
		line(w, cells)
	}
}

// printNumbers writes the medians of everything that was measured.
func (b *book) printNumbers(w io.Writer) {
	head := []string{"workload", "target"}
	for m := range measures {
		if b.measured(m) {
			head = append(head, titles[m])
		}
	}
	line(w, head)
	rule(w, len(head))
	for _, r := range b.rows {
		for _, c := range r.cells {
			if len(c.rounds) == 0 {
				continue
			}
			cells := []string{r.workload.name, c.target}
			for m := range measures {
				if b.measured(m) {
					cells = append(cells, number(median(c.values(m))))
				}
			}
			line(w, cells)
		}
	}
	fmt.Fprintln(w)
	for _, r := range b.rows {
		fmt.Fprintf(w, "- `%s`: %s\n", r.workload.name, r.workload.what)
	}
}

// measured tells whether any cell has numbers of a measure.
func (b *book) measured(m measure) bool {
	for _, r := range b.rows {
		for _, c := range r.cells {
			if len(c.values(m)) > 0 {
				return true
			}
		}
	}
	return false
}

// spread is the median of sorted ratios, and the least and largest if there are
// several.
func spread(ratios []float64) string {
	switch len(ratios) {
	case 0:
		return "–"
	case 1:
		return ratio(ratios[0])
	}
	return fmt.Sprintf("**%s** (%s–%s)", ratio(median(ratios)), ratio(ratios[0]), ratio(ratios[len(ratios)-1]))
}

// ratio has two digits that mean something.
func ratio(v float64) string {
	if v != 0 && v < 0.1 {
		return fmt.Sprintf("%.2g", v)
	}
	return fmt.Sprintf("%.2f", v)
}

// number has three digits, and – for what wasn't measured.
func number(v float64) string {
	switch {
	case math.IsNaN(v):
		return "–"
	case math.Abs(v) >= 100 || v == math.Trunc(v):
		return fmt.Sprintf("%.0f", v)
	case math.Abs(v) >= 10:
		return fmt.Sprintf("%.1f", v)
	}
	return fmt.Sprintf("%.2f", v)
}

func line(w io.Writer, cells []string) { fmt.Fprintf(w, "| %s |\n", strings.Join(cells, " | ")) }

func rule(w io.Writer, columns int) {
	fmt.Fprintln(w, "|---|---|"+strings.Repeat("---:|", columns-2))
}
