package gateway

import (
	"context"
	"time"

	"github.com/sourcegraph/conc"
)

// probe dials every endpoint from time to time and closes the connection at once, until ctx
// ends. That is all that can be done without looking into what is passed on.
func (g *Gateway) probe(ctx context.Context) {
	tick := time.NewTicker(g.opts.ProbeInterval)
	defer tick.Stop()
	for {
		var wg conc.WaitGroup
		for _, t := range g.pool.targets() {
			wg.Go(func() { g.probeOne(ctx, t) })
		}
		wg.Wait()
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
	}
}

func (g *Gateway) probeOne(ctx context.Context, t *target) {
	c, err := g.dial.DialContext(ctx, "tcp", t.addr)
	if err == nil {
		_ = c.Close()
	}
	if ctx.Err() == nil {
		g.tell(t, err == nil, err)
	}
}

// refresh asks for the endpoints from time to time, and at once where they are to come from
// elsewhere (Replace), until ctx ends.
func (g *Gateway) refresh(ctx context.Context) {
	endpoints := g.opts.Endpoints
	for {
		wait := g.opts.Refresh
		if len(g.pool.targets()) == 0 {
			wait = min(wait, g.opts.ProbeInterval)
		}
		select {
		case <-ctx.Done():
			return
		case s := <-g.sources:
			endpoints = s.endpoints
			g.pool.pickBy(s.strategy)
		case <-time.After(wait):
		}
		es, err := endpoints(ctx)
		switch {
		case ctx.Err() != nil:
			return
		case len(es) == 0 || err != nil && len(g.pool.targets()) > 0:
			g.opts.Logger.Warn("gateway: the endpoints could not be looked up; the last ones stay", "error", err)
			continue
		}
		for _, t := range g.pool.replace(es) {
			g.opts.Logger.Info("gateway: new endpoint", "endpoint", t.addr)
		}
	}
}
