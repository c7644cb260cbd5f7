package main

import (
	"fmt"
	"io"
	"path/filepath"
	"strings"

	"github.com/sharder/sharder/conf"
	"github.com/sharder/sharder/stages"
	"github.com/sharder/sharder/stages/backend"
	"github.com/sharder/sharder/stages/namespace"
)

// describe says in a few lines what is served from where.
func (f *fleet) describe(cfg *conf.Config, w io.Writer) {
	switch {
	case cfg.Order != nil:
		fmt.Fprintf(w, "sharder: %s, one revision; the order log and leases are on the order cluster\n", counted(len(f.shards)))
		var e *backend.Embedded
		if f.central != nil {
			e = f.central.embedded
		}
		fmt.Fprintf(w, "  order: %s\n", place(cfg, cfg.Order.Shard, conf.OrderDir, e))
	case len(f.shards) == 1:
		fmt.Fprintln(w, "sharder: one etcd cluster; revisions, tokens and leases are its own")
	default:
		fmt.Fprintf(w, "sharder: %d shards, each with its own revisions; leases are at home on %s\n", len(f.shards), f.shards[0].Name)
	}
	for i, s := range cfg.Shards {
		fmt.Fprintf(w, "  shard %s: %s\n", s.Name, place(cfg, s, s.Name, f.embedded[i]))
	}
	for _, line := range f.table.Describe() {
		fmt.Fprintf(w, "  keys %s\n", line)
	}
	if cfg.Namespace != nil {
		first, last := namespace.New(cfg.Namespace).LeaseIDs()
		fmt.Fprintf(w, "  namespace %q: clients have the keys that begin with it, and the leases from %s to %s\n", cfg.Namespace, first, last)
	}
	describeMembers(cfg, w)
}

// describeMembers says whom clients are told of that ask for members.
func describeMembers(cfg *conf.Config, w io.Writer) {
	at, alone := strings.Join(cfg.Advertised(), ", "), cfg.Order == nil && len(cfg.Shards) == 1
	switch {
	case cfg.Members == conf.MembersShard:
		fmt.Fprintln(w, "  members: those of the shard")
	case at == "":
		fmt.Fprintln(w, "  members: sharders; this one by the address on which a client comes, and not registered")
	case alone && cfg.Registration.Prefix == "":
		fmt.Fprintf(w, "  members: this sharder, at %s\n", at)
	default:
		fmt.Fprintf(w, "  members: sharders; this one is registered at %s\n", at)
	}
}

func counted(shards int) string {
	if shards == 1 {
		return "1 shard"
	}
	return fmt.Sprintf("%d shards", shards)
}

// place says where a cluster is. An embedded one that was not started has no address.
func place(cfg *conf.Config, s conf.Shard, dir string, e *backend.Embedded) string {
	switch dir = filepath.Join(cfg.DataDir, dir); {
	case !s.Embedded:
		return strings.Join(s.Endpoints, ", ")
	case e == nil:
		return "embedded etcd, data in " + dir
	default:
		return fmt.Sprintf("embedded etcd on %s, data in %s", e.Endpoint(), dir)
	}
}

// explain is --check: what the configuration means, without touching any etcd.
func explain(cfg *conf.Config, stdout, stderr io.Writer) int {
	defer func() {
		for _, g := range cfg.Gateways {
			fmt.Fprintf(stdout, "would serve gateway %s on %s, to %s\n", g.Name, g.Listen, strings.Join(append(g.Endpoints, g.DiscoverySRV)[:max(1, len(g.Endpoints))], ", "))
		}
	}()
	if len(cfg.Shards) == 0 {
		return 0
	}
	f := &fleet{embedded: make([]*backend.Embedded, len(cfg.Shards))}
	for i, s := range cfg.Shards {
		f.shards = append(f.shards, &stages.Shard{Number: i, Name: s.Name})
	}
	var err error
	if f.table, err = stages.NewTable(routesOf(cfg), f.shards); err != nil {
		fmt.Fprintln(stderr, "sharder:", err)
		return exitMisused
	}
	f.describe(cfg, stdout)
	fmt.Fprintf(stdout, "would serve the etcd API on %s\n", strings.Join(cfg.Listen, ", "))
	if cfg.Metrics != "" {
		fmt.Fprintf(stdout, "would serve metrics and status on %s\n", cfg.Metrics)
	}
	return 0
}
