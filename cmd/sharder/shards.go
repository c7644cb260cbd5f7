package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"path/filepath"
	"strings"

	"github.com/sourcegraph/conc"

	"github.com/sharder/sharder/conf"
	"github.com/sharder/sharder/pipeline"
	"github.com/sharder/sharder/stages"
	"github.com/sharder/sharder/stages/backend"
)

// fleet is the etcd clusters behind one sharder, and the table of what lives where.
// Whoever opened it runs Run for as long as it is used, and closes it last.
type fleet struct {
	table    *stages.Table
	shards   []*stages.Shard
	clusters []*backend.Cluster
	embedded []*backend.Embedded // by position; nil for a shard that runs elsewhere
	gates    []*gate
}

// openFleet starts the embedded shards and prepares the connections to the others.
// After an error nothing is left running.
func openFleet(cfg *conf.Config, log *slog.Logger) (_ *fleet, err error) {
	f := &fleet{}
	defer func() {
		if err != nil {
			err = errors.Join(err, f.Close())
		}
	}()
	for i, s := range cfg.Shards {
		if err := f.open(cfg, i, s, log); err != nil {
			return nil, err
		}
	}
	f.table, err = stages.NewTable(routesOf(cfg), f.shards)
	return f, err
}

// open adds one shard.
func (f *fleet) open(cfg *conf.Config, i int, s conf.Shard, log *slog.Logger) error {
	var e *backend.Embedded
	if s.Embedded {
		var err error
		e, err = backend.StartEmbedded(backend.EmbeddedOptions{
			Name: s.Name, Dir: filepath.Join(cfg.DataDir, s.Name), Listen: s.Listen,
			MaxRequestBytes: uint(cfg.MaxRequestBytes), Logger: log,
		})
		if err != nil {
			return err
		}
		s.Endpoints = []string{e.Endpoint()}
	}
	f.embedded = append(f.embedded, e)
	o, err := clusterOptions(s, log)
	if err != nil {
		return err
	}
	c, err := backend.Open(o)
	if err != nil {
		return err
	}
	f.clusters = append(f.clusters, c)
	g := &gate{conn: c, name: s.Name}
	f.gates = append(f.gates, g)
	f.shards = append(f.shards, &stages.Shard{
		Number: i, Name: s.Name, Conn: g,
		Lane: pipeline.NewLink(cfg.Limits.PerShard, cfg.Limits.PerShardWaiting),
	})
	return nil
}

func clusterOptions(s conf.Shard, log *slog.Logger) (backend.Options, error) {
	o := backend.Options{
		Name: s.Name, Endpoints: s.Endpoints, Username: s.Username,
		HealthInterval: s.HealthInterval, Timeout: s.Timeout, Logger: log,
	}
	if !s.TLS.Empty() {
		t, err := backend.TLSConfig(s.TLS.CA, s.TLS.Cert, s.TLS.Key, s.TLS.ServerName)
		if err != nil {
			return o, fmt.Errorf("shard %s: %w", s.Name, err)
		}
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
// dies is the end of the process: its shard would not come back.
func (f *fleet) Run(ctx context.Context) error {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	var wg conc.WaitGroup
	for _, c := range f.clusters {
		wg.Go(func() { _ = c.Run(ctx) })
	}
	for i, e := range f.embedded {
		if e == nil {
			continue
		}
		wg.Go(func() {
			select {
			case err := <-e.Err():
				if ctx.Err() == nil {
					cancel(fmt.Errorf("shard %s: the embedded etcd ended: %w", f.shards[i].Name, err))
				}
			case <-ctx.Done():
			}
		})
	}
	wg.Wait()
	return context.Cause(ctx)
}

// Close ends the connections, then the embedded etcds.
func (f *fleet) Close() error {
	var errs []error
	for _, c := range f.clusters {
		errs = append(errs, c.Close())
	}
	for _, e := range f.embedded {
		if e != nil {
			errs = append(errs, e.Close())
		}
	}
	return errors.Join(errs...)
}

// describe says in a few lines what is served from where.
func (f *fleet) describe(cfg *conf.Config, w io.Writer) {
	if len(f.shards) == 1 {
		fmt.Fprintln(w, "sharder: one etcd cluster; revisions, tokens and leases are its own")
	} else {
		fmt.Fprintf(w, "sharder: %d shards, each with its own revisions; leases are at home on %s\n", len(f.shards), f.shards[0].Name)
	}
	for i, s := range cfg.Shards {
		if e := f.embedded[i]; e != nil {
			fmt.Fprintf(w, "  shard %s: embedded etcd on %s, data in %s\n", s.Name, e.Endpoint(), filepath.Join(cfg.DataDir, s.Name))
			continue
		}
		fmt.Fprintf(w, "  shard %s: %s\n", s.Name, strings.Join(s.Endpoints, ", "))
	}
	for _, line := range f.table.Describe() {
		fmt.Fprintf(w, "  keys %s\n", line)
	}
}

// explain is --check: what the configuration means, without touching any etcd.
func explain(cfg *conf.Config, stdout, stderr io.Writer) int {
	f := &fleet{embedded: make([]*backend.Embedded, len(cfg.Shards))}
	for i, s := range cfg.Shards {
		f.shards = append(f.shards, &stages.Shard{Number: i, Name: s.Name})
		if s.Embedded {
			cfg.Shards[i].Endpoints = []string{"embedded etcd, data in " + filepath.Join(cfg.DataDir, s.Name)}
		}
	}
	var err error
	if f.table, err = stages.NewTable(routesOf(cfg), f.shards); err != nil {
		fmt.Fprintln(stderr, "sharder:", err)
		return exitMisused
	}
	f.describe(cfg, stdout)
	fmt.Fprintf(stdout, "would serve the etcd API on %s\n", strings.Join(cfg.Listen, ", "))
	return 0
}
