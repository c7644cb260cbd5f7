package main

import (
	"context"
	"fmt"
	"time"
)

// The watch cells: how a fan-out is driven, and what is counted.

// watchPaced measures how late events are when there is time for each: a put every
// paceEvery. It also counts what the watchers cost the etcds.
func watchPaced(ctx context.Context, t *target, p plan) (result, error) {
	p.cell = max(p.cell, 4*paceEvery)
	return watchCell(ctx, t, p, func(ctx context.Context, f *fanout, n int) error {
		sleep(ctx, time.Until(f.started.Add(time.Duration(n)*paceEvery)))
		return ctx.Err()
	}, true)
}

// watchFull measures how many events per second go through: a put as soon as the
// slowest watcher is less than ahead puts behind, so that nothing piles up without
// bound and a target that throws watchers out isn't rewarded for it.
func watchFull(ctx context.Context, t *target, p plan) (result, error) {
	return watchCell(ctx, t, p, func(ctx context.Context, f *fanout, n int) error {
		if n < ahead {
			return nil
		}
		return f.everywhere(ctx, n-ahead)
	}, false)
}

// watchCell runs one fan-out; admit says when put n may go. paced cells report delays,
// others the rate.
func watchCell(ctx context.Context, t *target, p plan, admit func(context.Context, *fanout, int) error, paced bool) (result, error) {
	ctx, cancel := context.WithTimeout(ctx, p.warm()+p.cell+requestBound)
	defer cancel()
	idle, err := t.watchers(ctx)
	if err != nil {
		return nil, err
	}
	f := newFanout(t, p.watchers)
	if err := f.open(ctx); err != nil {
		return nil, err
	}
	open, err := t.watchers(ctx)
	if err != nil {
		return nil, err
	}
	r := result{upstream: open - idle}
	first, last := 0, 0
	err = f.run(ctx, cancel, func() (err error) {
		first, last, err = f.write(ctx, p, admit, r)
		return err
	})
	if err != nil {
		return nil, err
	}
	if paced {
		var delays []time.Duration
		for _, w := range f.receivers {
			delays = append(delays, w.delays[first:last]...)
		}
		r.latency(delays)
		delete(r, rate) // it is the pace, not what the target can do
	}
	return r, settle(context.WithoutCancel(ctx), t, idle)
}

// write puts for the time of the cell and waits until all has arrived. It returns the
// numbers whose puts are counted, [first, last), and puts rate and cost into r.
func (f *fanout) write(ctx context.Context, p plan, admit func(context.Context, *fanout, int) error, r result) (first, last int, err error) {
	f.started = time.Now()
	begin := f.started.Add(p.warm())
	end := begin.Add(p.cell)
	var events int64
	var before usage
	n, counting := 0, false
	for ; n < maxPuts && (time.Now().Before(end) || !counting); n++ { // one is counted, however late
		if err := admit(ctx, f, n); err != nil {
			return 0, 0, err
		}
		if !counting && !time.Now().Before(begin) {
			counting, begin, first = true, time.Now(), n
			events, before = f.events.Load(), f.t.usage()
		}
		if err := f.put(ctx, n); err != nil {
			return 0, 0, err
		}
	}
	if !counting || n == first {
		return 0, 0, fmt.Errorf("no put fell into the counted time")
	}
	events = f.events.Load() - events
	r[rate] = float64(events) / time.Since(begin).Seconds()
	f.t.usage().since(before, float64(events), r)
	return first, n, f.everywhere(ctx, n-1)
}

// settle waits until the watchers of a cell are gone from the etcds, so that their end
// doesn't cost the next target. It gives up after a moment: a proxy may keep some.
func settle(ctx context.Context, t *target, idle float64) error {
	ctx, cancel := context.WithTimeout(ctx, drainBound)
	defer cancel()
	for end := time.Now().Add(5 * time.Second); time.Now().Before(end); {
		now, err := t.watchers(ctx)
		if err != nil || now <= idle {
			return err
		}
		sleep(ctx, 20*time.Millisecond)
	}
	return nil
}
