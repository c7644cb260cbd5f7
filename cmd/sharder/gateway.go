package main

import (
	"context"
	"fmt"
	"io"
	"log/slog"
	"net"
	"slices"

	"github.com/sourcegraph/conc/pool"

	"github.com/sharder/sharder/conf"
	"github.com/sharder/sharder/stages/backend"
	"github.com/sharder/sharder/stages/discovery"
	"github.com/sharder/sharder/stages/gateway"
	"github.com/sharder/sharder/stages/metrics"
)

// gateways are the gateways of a configuration, each with its listener, which serve
// closes.
type gateways struct {
	all       []*gateway.Gateway
	names     []string
	listeners []net.Listener
}

// openGateways listens for all of them and looks their endpoints up. One whose endpoints
// are not to be found is an error, if there is nothing but gateways; shards are served all
// the same, and the endpoints looked up again.
func openGateways(ctx context.Context, cfg *conf.Config, log *slog.Logger) (gs *gateways, err error) {
	gs = &gateways{}
	defer func() {
		if err != nil {
			gs.close()
		}
	}()
	for _, c := range cfg.Gateways {
		o, err := gatewayOptions(cfg, c, log.With("gateway", c.Name))
		if err != nil {
			return gs, fmt.Errorf("gateway %s: %w", c.Name, err)
		}
		l, err := net.Listen("tcp", c.Listen)
		if err != nil {
			return gs, fmt.Errorf("gateway %s: listen on %s: %w", c.Name, c.Listen, err)
		}
		g := gateway.New(o)
		gs.all, gs.names, gs.listeners = append(gs.all, g), append(gs.names, c.Name), append(gs.listeners, l)
		switch err := g.Load(ctx); {
		case err != nil && len(cfg.Shards) == 0:
			return gs, fmt.Errorf("gateway %s: %w", c.Name, err)
		case err != nil:
			log.Warn("a gateway has no endpoints yet", "gateway", c.Name, "error", err)
		}
	}
	return gs, nil
}

// gatewayOptions says how a gateway of the configuration works.
func gatewayOptions(cfg *conf.Config, c conf.Gateway, log *slog.Logger) (gateway.Options, error) {
	o := gateway.Options{
		Refresh: c.DiscoveryInterval, Strategy: gateway.Strategy(c.Strategy), Connections: c.Connections,
		DialTimeout: c.DialTimeout, ProbeInterval: c.ProbeInterval, DrainTimeout: cfg.DrainTimeout, Logger: log,
	}
	if c.DiscoverySRV == "" {
		o.Endpoints = gateway.Fixed(withoutSchemes(c.Endpoints)...)
		return o, nil
	}
	d := discovery.Lookup{Domain: c.DiscoverySRV, Name: c.DiscoveryName, Logger: log}
	if !c.InsecureDiscovery {
		var err error
		if d.TLS, err = backend.TLSConfig(c.TrustedCA, "", "", c.DiscoverySRV); err != nil {
			return o, err
		}
	}
	o.Endpoints = d.Endpoints
	return o, nil
}

// reload has the gateways do what the file says by now of where connections go. Which gateways
// there are stays as it was.
func (gs *gateways) reload(file *reloads, log *slog.Logger) {
	file.on(func(cfg *conf.Config) error {
		for i, name := range gs.names {
			at := slices.IndexFunc(cfg.Gateways, func(g conf.Gateway) bool { return g.Name == name })
			if at < 0 {
				continue
			}
			o, err := gatewayOptions(cfg, cfg.Gateways[at], log.With("gateway", name))
			if err != nil {
				return fmt.Errorf("gateway %s: %w", name, err)
			}
			gs.all[i].Replace(o.Endpoints, o.Strategy)
		}
		return nil
	}, "gateways.*.endpoints", "gateways.*.strategy", "gateways.*.discovery_srv", "gateways.*.discovery_srv_name",
		"gateways.*.insecure_discovery", "gateways.*.trusted_ca_file")
}

// withoutSchemes takes http:// and https:// off: both are bytes to a gateway.
func withoutSchemes(endpoints []string) []string {
	out := make([]string, 0, len(endpoints))
	for _, e := range endpoints {
		out = append(out, withoutScheme(e))
	}
	return out
}

// describe says where they are served.
func (gs *gateways) describe(w io.Writer) {
	for i, name := range gs.names {
		fmt.Fprintf(w, "gateway %s: serving on %s\n", name, gs.listeners[i].Addr())
	}
}

// addresses are where they are served.
func (gs *gateways) addresses() (all []string) {
	for _, l := range gs.listeners {
		all = append(all, l.Addr().String())
	}
	return all
}

// count has the metrics tell how the gateways do.
func (gs *gateways) count(m *metrics.Metrics) {
	stats := map[string]func() gateway.Stats{}
	for i, name := range gs.names {
		stats[name] = gs.all[i].Stats
	}
	m.Gateways(stats)
}

// serve serves until ctx ends or one of them fails, then drains.
func (gs *gateways) serve(ctx context.Context) error {
	p := pool.New().WithContext(ctx).WithCancelOnError()
	for i, g := range gs.all {
		p.Go(func(ctx context.Context) error {
			if err := g.Serve(ctx, gs.listeners[i]); err != nil {
				return fmt.Errorf("gateway %s: %w", gs.names[i], err)
			}
			return nil
		})
	}
	return p.Wait()
}

func (gs *gateways) close() {
	for _, l := range gs.listeners {
		_ = l.Close()
	}
}

// serveGateways is serve for a configuration that has gateways alone.
func serveGateways(ctx context.Context, cfg *conf.Config, stdout io.Writer, log *slog.Logger) error {
	_, operators, err := listen(cfg, log)
	if err != nil {
		return err
	}
	if operators != nil {
		defer operators.Close()
	}
	gs, err := openGateways(ctx, cfg, log)
	if err != nil {
		return err
	}
	gs.describe(stdout)
	counts := metrics.New(buildVersion())
	gs.count(counts)
	side := newSite(ctx, counts, nil)
	side.serving.Store(true)
	log.Info("ready to proxy client requests", "addresses", gs.addresses()) // etcd's words: scripts wait for them
	if err := notifyReady(); err != nil {
		log.Warn("systemd could not be told that the gateway is ready", "error", err)
	}
	file := newReloads(cfg.File, log)
	gs.reload(file, log)
	counts.Reloads(file.status)
	return above(ctx, func(ctx context.Context, b *beneath) error {
		b.run(file.run)
		return side.around(ctx, operators, stdout, log, gs.serve)
	})
}
