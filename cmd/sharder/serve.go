package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"sync/atomic"
	"time"

	"github.com/sourcegraph/conc/pool"

	"github.com/sharder/sharder/conf"
	"github.com/sharder/sharder/stages/port"
)

// serve runs a whole sharder until ctx ends, then drains it. Everything it started has
// ended when it returns.
func serve(ctx context.Context, cfg *conf.Config, stdout io.Writer, log *slog.Logger) error {
	return serveAndTell(ctx, cfg, stdout, log, func(string) {})
}

// serveAndTell is serve that tells, once, when clients are served, and where.
func serveAndTell(ctx context.Context, cfg *conf.Config, stdout io.Writer, log *slog.Logger, ready func(addresses string)) error {
	listeners, operators, err := listen(cfg, log)
	if err != nil {
		return err
	}
	defer closeAll(listeners)
	if operators != nil {
		defer operators.Close()
	}
	gs, err := openGateways(ctx, cfg, log)
	if err != nil {
		return err
	}
	gs.describe(stdout)
	file := newReloads(cfg.File, log)
	gs.reload(file, log)
	p := pool.New().WithContext(ctx).WithCancelOnError()
	p.Go(gs.serve)
	p.Go(func(ctx context.Context) error {
		return withFleet(ctx, cfg, log, func(ctx context.Context, f *fleet) error {
			gs.count(f.counts)
			f.ready, f.file = ready, file
			f.counts.Reloads(file.status)
			return f.serve(ctx, cfg, listeners, operators, stdout, log)
		})
	})
	return p.Wait()
}

// withFleet opens a fleet, runs it while do does what it is opened for, and closes it. The
// context of do ends when the fleet can't go on. What serves outlives what asks: the
// fleet ends after do has returned.
func withFleet(ctx context.Context, cfg *conf.Config, log *slog.Logger, do func(context.Context, *fleet) error) (err error) {
	f, err := openFleet(cfg, log)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, f.Close()) }()
	return above(ctx, func(ctx context.Context, b *beneath) error {
		b.run(f.Run)
		return do(ctx, f)
	})
}

// serve serves on the listeners until ctx ends, then drains. The HTTP side for operators,
// if there is one (operators), is up from before the first claim until after the drain.
func (f *fleet) serve(ctx context.Context, cfg *conf.Config, listeners []port.Listener, operators *port.Listener, stdout io.Writer, log *slog.Logger) error {
	side := newSite(ctx, f.counts, f)
	return side.around(ctx, operators, stdout, log, func(ctx context.Context) error {
		return f.serveClients(ctx, cfg, listeners, side, stdout, log)
	})
}

func (f *fleet) serveClients(ctx context.Context, cfg *conf.Config, listeners []port.Listener, side *site, stdout io.Writer, log *slog.Logger) error {
	return above(ctx, func(ctx context.Context, b *beneath) error {
		more, err := f.join(ctx, log)
		switch {
		case errors.Is(err, context.Canceled) && ctx.Err() != nil:
			return nil // asked to stop while it waited
		case err != nil:
			return err
		}
		b.run(func(ctx context.Context) error { return f.settle(ctx, more, int(cfg.MaxRequestBytes), log) })
		c := newChains(cfg, f.table, f.ordered(), f.addressed(), log)
		if f.central != nil {
			b.run(f.central.order.Run)
		}
		c.recoverLeases(ctx, log)
		server, err := newServer(cfg, c, side, listeners, log)
		if err != nil {
			return err
		}
		f.counts.Door(c.door)
		f.counts.Watch(c.watch)
		b.run(c.watch.Run)
		if c.cache != nil {
			f.counts.Cache(c.cache)
			b.run(c.cache.Run)
		}
		drain := f.follow(cfg, b)
		f.tell(cfg, side, addresses(listeners), stdout, log)
		defer c.wait()
		return server.run(ctx, c, drain)
	})
}

// follow has the fleet do what the file says by now, and gives the bound of a drain, which is
// looked at when it begins.
func (f *fleet) follow(cfg *conf.Config, b *beneath) (drain func() *time.Duration) {
	var bound atomic.Pointer[time.Duration]
	bound.Store(&cfg.DrainTimeout)
	f.file.on(func(c *conf.Config) error { bound.Store(&c.DrainTimeout); return nil }, "drain_timeout")
	f.reload(f.file)
	b.run(f.file.run)
	return bound.Load
}

// tell says to everybody that clients are served.
func (f *fleet) tell(cfg *conf.Config, side *site, addresses string, stdout io.Writer, log *slog.Logger) {
	f.describe(cfg, stdout)
	fmt.Fprintf(stdout, "serving the etcd API on %s\n", addresses)
	side.serving.Store(true)
	f.ready(addresses)
	if err := notifyReady(); err != nil {
		log.Warn("systemd could not be told that sharder is ready", "error", err)
	}
}

// wait returns when what was passed on has ended; the server has.
func (c *chains) wait() {
	if c.relay != nil {
		c.relay.Wait()
	}
	c.maintainer.Wait()
}

// recoverTimeout bounds what is done about old leases before the first request. What
// is not done by then is done later, by Run.
const recoverTimeout = 10 * time.Second

func (c *chains) recoverLeases(ctx context.Context, log *slog.Logger) {
	ctx, cancel := context.WithTimeout(ctx, recoverTimeout)
	defer cancel()
	if err := c.leases.Recover(ctx); err != nil {
		log.Warn("leases: not everything that is owed could be finished before serving; it goes on", "error", err)
	}
}
