package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"math"
	"os"
	"path/filepath"
	"strings"

	"github.com/sourcegraph/conc"

	"github.com/sharder/sharder/conf"
	"github.com/sharder/sharder/pipeline"
	"github.com/sharder/sharder/stages"
	"github.com/sharder/sharder/stages/backend"
	"github.com/sharder/sharder/stages/metrics"
)

// fleet is the etcd clusters behind one sharder, and the table of what lives where.
// Whoever opened it runs Run for as long as it is used, and closes it last.
type fleet struct {
	table    *stages.Table
	shards   []*stages.Shard
	clusters []*backend.Cluster
	embedded []*backend.Embedded // by position; nil for a shard that runs elsewhere
	gates    []*gate
	width    []bool        // by position: whether it was looked how much the shard takes
	central  *orderCluster // nil without [order]
	counts   *metrics.Metrics
	ready    func(addresses string) // told when clients are served
	file     *reloads               // what the configuration says by now; nil for an import
}

// openFleet starts the embedded etcds and prepares the connections to the others.
// After an error nothing is left running.
func openFleet(cfg *conf.Config, log *slog.Logger) (_ *fleet, err error) {
	f := &fleet{counts: metrics.New(buildVersion()), ready: func(string) {}}
	defer func() {
		if err != nil {
			err = errors.Join(err, f.Close())
		}
	}()
	if cfg.Order != nil {
		if err := f.openOrder(cfg, log); err != nil {
			return nil, err
		}
	}
	for i, s := range cfg.Shards {
		if err := f.open(cfg, i, s, log); err != nil {
			return nil, err
		}
	}
	if f.table, err = stages.NewTable(routesOf(cfg), f.shards); err != nil {
		return nil, err
	}
	if f.central != nil {
		f.makeOrder(cfg, log)
	}
	return f, nil
}

// open adds one shard.
func (f *fleet) open(cfg *conf.Config, i int, s conf.Shard, log *slog.Logger) error {
	c, e, err := f.openCluster(cfg, s, s.Name, log)
	f.embedded = append(f.embedded, e)
	if err != nil {
		return err
	}
	f.clusters = append(f.clusters, c)
	f.width = append(f.width, e != nil) // ours are as wide as they have to be
	g := &gate{conn: c, name: s.Name}
	f.gates = append(f.gates, g)
	shard := &stages.Shard{
		Number: i, Name: s.Name, Conn: f.counts.Conn(s.Name, g),
		Lane: pipeline.NewLink(cfg.Limits.PerShard, cfg.Limits.PerShardWaiting),
	}
	f.shards = append(f.shards, shard)
	f.count(shard, c, g.open.Load)
	return nil
}

// count has the metrics tell how a cluster does. open tells whether anything gets through
// to it.
func (f *fleet) count(s *stages.Shard, c *backend.Cluster, open func() bool) {
	f.counts.Lane(s.Name, s.Lane)
	f.counts.Cluster(s.Name, func() bool { return c.Healthy() && !c.NoLeader() }, open)
	f.counts.Endpoints(s.Name, func() (all []metrics.EndpointState) {
		for _, m := range c.Members() {
			all = append(all, metrics.EndpointState{Endpoint: m.Endpoint, Serves: m.Healthy && !m.NoLeader && !m.Stalled, Leads: m.Leader})
		}
		return all
	})
}

// openCluster starts the etcd, if it is an embedded one, with its data in dir below the
// data directory, and prepares the connections. After an error the caller closes what
// there is of the two.
func (f *fleet) openCluster(cfg *conf.Config, s conf.Shard, dir string, log *slog.Logger) (*backend.Cluster, *backend.Embedded, error) {
	var e *backend.Embedded
	if s.Embedded {
		o := backend.EmbeddedOptions{
			Name: dir, Dir: filepath.Join(cfg.DataDir, dir), Listen: s.Listen,
			MaxRequestBytes: uint(cfg.MaxRequestBytes), Logger: log,
		}
		if cfg.Order != nil {
			o.MaxRequestBytes += backend.ShardRequestRoom
			o.MaxTxnOps = backend.ShardTxnOps
		}
		var err error
		if e, err = backend.StartEmbedded(o); err != nil {
			return nil, nil, err
		}
		s.Endpoints = []string{e.Endpoint()}
	}
	o, err := clusterOptions(s, log)
	if err != nil {
		return nil, e, err
	}
	// One cluster's clients answer for themselves: they must not be taken for sharder.
	o.OwnCallsOnly = cfg.Order == nil && len(cfg.Shards) == 1
	o.Meter = func(endpoint string) backend.Meter { return f.counts.Endpoint(s.Name, endpoint) }
	c, err := backend.Open(o)
	return c, e, err
}

// reload has clusters whose endpoints are written in the file follow them. Where the file
// has none any more it is another key that has changed, and needs a restart.
func (f *fleet) reload(file *reloads) {
	follow := func(c *backend.Cluster, e *backend.Embedded, key string, find func(*conf.Config) []string) {
		if e != nil {
			return
		}
		file.on(func(cfg *conf.Config) error {
			if endpoints := find(cfg); len(endpoints) > 0 {
				return c.Replace(endpoints)
			}
			return nil
		}, key)
	}
	for i, s := range f.shards {
		follow(f.clusters[i], f.embedded[i], "shards."+s.Name+".endpoints", func(cfg *conf.Config) (endpoints []string) {
			for _, now := range cfg.Shards {
				if now.Name == s.Name {
					endpoints = now.Endpoints
				}
			}
			return endpoints
		})
	}
	if c := f.central; c != nil {
		follow(c.cluster, c.embedded, "order.endpoints", func(cfg *conf.Config) (endpoints []string) {
			if cfg.Order != nil {
				endpoints = cfg.Order.Endpoints
			}
			return endpoints
		})
	}
}

// clusterOptions says how the members of a cluster are found and spoken to.
func clusterOptions(s conf.Shard, log *slog.Logger) (backend.Options, error) {
	o := backend.Options{
		Name: s.Name, Endpoints: s.Endpoints, Username: s.Username,
		DiscoverySRV: s.DiscoverySRV, DiscoveryName: s.DiscoveryName, InsecureDiscovery: s.InsecureDiscovery,
		DiscoveryInterval: s.DiscoveryInterval, AutoSyncInterval: s.AutoSyncInterval,
		KeepaliveTime: s.KeepAliveTime, KeepaliveTimeout: s.KeepAliveTimeout, KeepaliveWithoutCalls: s.KeepAliveWithoutCalls,
		MaxSendBytes: int(min(s.MaxSendBytes, math.MaxInt32)), MaxRecvBytes: int(min(s.MaxRecvBytes, math.MaxInt32)),
		HealthInterval: s.HealthInterval, Timeout: s.Timeout, Logger: log,
	}
	if s.KeepAliveTime == 0 {
		o.KeepaliveTime = -1 // there, 0 is the default
	}
	if !s.TLS.Empty() {
		t, err := backend.TLSConfig(s.TLS.CA, s.TLS.Cert, s.TLS.Key, s.TLS.ServerName)
		if err != nil {
			return o, fmt.Errorf("shard %s: %w", s.Name, err)
		}
		t.InsecureSkipVerify = s.TLS.InsecureSkipVerify
		o.TLS = t
	}
	if s.PasswordFile != "" {
		text, err := os.ReadFile(s.PasswordFile)
		if err != nil {
			return o, fmt.Errorf("shard %s: password_file: %w", s.Name, err)
		}
		o.Password, _, _ = strings.Cut(strings.TrimRight(string(text), "\r\n"), "\n")
	}
	return o, nil
}

func routesOf(cfg *conf.Config) []stages.Route {
	routes := make([]stages.Route, len(cfg.Routes))
	for i, r := range cfg.Routes {
		routes[i] = stages.Route{Key: r.Key, Shards: r.Shards, Hash: r.Hash}
	}
	return routes
}

// Run keeps an eye on the clusters' members until ctx ends. An embedded etcd that
// dies is the end of the process: it would not come back.
func (f *fleet) Run(ctx context.Context) error {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	var wg conc.WaitGroup
	run := func(name string, c *backend.Cluster, e *backend.Embedded) {
		wg.Go(func() { _ = c.Run(ctx) })
		if e == nil {
			return
		}
		wg.Go(func() {
			select {
			case err := <-e.Err():
				if ctx.Err() == nil {
					cancel(fmt.Errorf("shard %s: the embedded etcd ended: %w", name, err))
				}
			case <-ctx.Done():
			}
		})
	}
	for i, s := range f.shards {
		run(s.Name, f.clusters[i], f.embedded[i])
	}
	if f.central != nil {
		run(f.central.home.Name, f.central.cluster, f.central.embedded)
	}
	wg.Wait()
	return context.Cause(ctx)
}

// Close ends the connections, then the embedded etcds.
func (f *fleet) Close() error {
	clusters, embedded := f.clusters, f.embedded
	if c := f.central; c != nil {
		clusters, embedded = append(clusters, c.cluster), append(embedded, c.embedded)
	}
	var errs []error
	for _, c := range clusters {
		if c != nil {
			errs = append(errs, c.Close())
		}
	}
	for _, e := range embedded {
		if e != nil {
			errs = append(errs, e.Close())
		}
	}
	return errors.Join(errs...)
}
