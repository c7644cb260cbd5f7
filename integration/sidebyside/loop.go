package main

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/sourcegraph/conc"
)

const (
	maxRequests  = 1 << 18          // of one client in one cell, counted ones and others
	requestBound = 30 * time.Second // how much longer than its cell a request may take
	maxErrors    = 100              // of one client in one cell; then it gives up
)

// request is one operation of a client, from asking to the answer checked.
type request func(ctx context.Context, client int) error

// loop runs closed request loops: each client asks again as soon as it is answered.
// What begins in the first quarter isn't counted. A client to which that leaves nothing,
// because its requests take as long as the cell, makes one more.
type loop struct {
	clients    int
	begin, end time.Time // of what is counted

	mu      sync.Mutex // guards what the clients leave
	samples []time.Duration
	errors  int
	first   error
}

// runLoop measures a request on a target. Single requests may fail, which makes an
// error of the cell in the end; the others are measured nevertheless.
func runLoop(ctx context.Context, t *target, p plan, clients int, do request) (result, error) {
	l := &loop{clients: clients, begin: time.Now().Add(p.warm())}
	l.end = l.begin.Add(p.cell)
	ctx, cancel := context.WithDeadline(ctx, l.end.Add(requestBound))
	defer cancel()
	var wg conc.WaitGroup
	for i := range clients {
		wg.Go(func() { l.client(ctx, i, do) })
	}
	sleep(ctx, time.Until(l.begin))
	logBefore, err := t.orderLoad(ctx)
	before := t.usage()
	sleep(ctx, time.Until(l.end))
	after := t.usage()
	logAfter, err2 := t.orderLoad(ctx)
	wg.Wait()
	if err := errors.Join(err, err2); err != nil {
		return nil, err
	}
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	if l.errors > 0 {
		return nil, fmt.Errorf("%d requests failed, the first with: %w", l.errors, l.first)
	}
	if len(l.samples) == 0 {
		return nil, fmt.Errorf("no request began and ended")
	}
	r := result{rate: float64(len(l.samples)) / p.cell.Seconds()}
	after.since(before, float64(len(l.samples)), r)
	if t.proxy != nil && after.known {
		n, err := resident(t.proxy)
		if err != nil {
			return nil, err
		}
		r[held] = float64(n) / (1 << 20)
	}
	logAfter.since(logBefore, float64(len(l.samples)), r)
	r.latency(l.samples)
	return r, nil
}

// client is one request loop.
func (l *loop) client(ctx context.Context, client int, do request) {
	var samples []time.Duration
	var first error
	failed := 0
	for range maxRequests {
		begin := time.Now()
		late := !begin.Before(l.end) && len(samples) > 0
		if late || failed == maxErrors || ctx.Err() != nil {
			break
		}
		if err := do(ctx, client); err != nil {
			failed++
			if first == nil {
				first = err
			}
			continue
		}
		if !begin.Before(l.begin) {
			samples = append(samples, time.Since(begin))
		}
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	l.samples = append(l.samples, samples...)
	l.errors += failed
	if l.first == nil {
		l.first = first
	}
}

// sleep waits, or until ctx ends.
func sleep(ctx context.Context, d time.Duration) {
	select {
	case <-ctx.Done():
	case <-time.After(d):
	}
}
