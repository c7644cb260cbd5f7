package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"runtime"
	"runtime/debug"
	"slices"
)

// book is what a run measured: for every workload and target a result per round. One
// goroutine writes it.
type book struct {
	plan         plan
	disk         result // how long an fsync takes, if the etcds wait for it
	begun, ended moment
	rows         []row
	errs         []error
}

// row is one workload.
type row struct {
	workload workload
	cells    []cell // by target
}

// cell is one workload on one target.
type cell struct {
	target string
	rounds []result // by round, nil where the cell failed; none if it isn't run on this target
}

// measure runs the workloads, the targets in turn in every round. A cell that fails is
// noted and the run goes on; only the end of ctx or of a process ends it.
func (b *book) measure(ctx context.Context, targets []*target, chosen []workload, progress io.Writer) error {
	for _, w := range chosen {
		row := row{workload: w}
		for _, t := range targets {
			c := cell{target: t.name}
			if w.runs(t) {
				c.rounds = make([]result, b.plan.rounds)
			}
			row.cells = append(row.cells, c)
		}
		for round := range b.plan.rounds {
			fmt.Fprintf(progress, "%s, round %d of %d\n", w.name, round+1, b.plan.rounds)
			for i, t := range targets {
				if !w.runs(t) {
					continue
				}
				r, err := w.run(ctx, t, b.plan)
				if err := errors.Join(ctx.Err(), t.gone()); err != nil {
					return err
				}
				if err != nil {
					err = fmt.Errorf("%s on %s, round %d: %w", w.name, t.name, round+1, err)
					b.errs = append(b.errs, err)
					fmt.Fprintln(progress, err)
					continue
				}
				row.cells[i].rounds[round] = r
			}
		}
		b.rows = append(b.rows, row)
	}
	return nil
}

// failures is the error of a run in which cells failed.
func (b *book) failures() error {
	if len(b.errs) == 0 {
		return nil
	}
	return fmt.Errorf("%d cells failed: %w", len(b.errs), errors.Join(b.errs...))
}

// values are a cell's numbers of one measure, by round.
func (c cell) values(m measure) []float64 {
	var all []float64
	for _, r := range c.rounds {
		if v, ok := r[m]; ok {
			all = append(all, v)
		}
	}
	return all
}

// ratios are a cell's numbers in those of another, round by round, sorted.
func (c cell) ratios(to cell, m measure) []float64 {
	var all []float64
	if len(to.rounds) == 0 {
		return nil
	}
	for i, r := range c.rounds {
		v, ok := r[m]
		base, both := to.rounds[i][m]
		if ok && both && base != 0 {
			all = append(all, v/base)
		}
	}
	return slices.Sorted(slices.Values(all))
}

// machine says what the run was made on.
func machine() string {
	text := fmt.Sprintf("%s/%s, %d CPUs, %s", runtime.GOOS, runtime.GOARCH, runtime.NumCPU(), runtime.Version())
	if info, ok := debug.ReadBuildInfo(); ok {
		for _, dep := range info.Deps {
			if dep.Path == "go.etcd.io/etcd/server/v3" || dep.Path == "go.etcd.io/etcd/api/v3" {
				text += ", etcd " + dep.Version
				break
			}
		}
	}
	return text
}
