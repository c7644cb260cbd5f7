package main

import (
	"context"
	"flag"
	"fmt"
	"io"
	"os"
	"os/signal"
	"path"
	"strings"
	"syscall"
	"time"
)

// plan is how much is measured.
type plan struct {
	cell     time.Duration // what is counted of one cell; a quarter of it goes before, uncounted
	rounds   int
	clients  int           // request loops of the cells whose name ends in -N
	watchers int           // watch streams of the watch cells
	ttl      int64         // of the lease of keepalive-N in seconds, and a fifth of those of leases-500 and nodes-500; 0: as there
	built    binaries      // what is compared, if it was built before
	fsync    bool          // the etcds wait for the disk
	slower   time.Duration // with fsync, by how much etcd's log takes longer than on this disk
	dir      string        // where everything is kept meanwhile; "" is the system's place
	gateways bool          // compare gateways instead of proxies
	hop      bool          // compare proxies of one etcd alone
	builds   []namedBuild  // other sharders to compare with the one that is built
	share    float64       // of one CPU, for each shard, when shards are to be the limit; else 0
}

// warm is the uncounted beginning of a cell.
func (p plan) warm() time.Duration { return p.cell / 4 }

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGINT, syscall.SIGTERM)
	defer stop()
	if err := run(ctx, os.Args[1:], os.Stdout, os.Stderr); err != nil {
		fmt.Fprintln(os.Stderr, "sidebyside:", err)
		stop()
		os.Exit(1)
	}
}

// run is the whole program. What it started has ended when it returns.
func run(ctx context.Context, args []string, stdout, stderr io.Writer) (err error) {
	flags := flag.NewFlagSet("sidebyside", flag.ContinueOnError)
	flags.SetOutput(stderr)
	seconds := flags.Float64("seconds", 2, "how long each cell is measured, in `seconds`")
	rounds := flags.Int("rounds", 3, "how often each cell is measured; medians are reported")
	clients := flags.Int("clients", 32, "request loops at once where a cell has many clients")
	watchers := flags.Int("watchers", 1000, "watchers on one key")
	only := flags.String("only", "", "the workloads to run, comma separated, * allowed: "+names(workloads))
	fsync := flags.Bool("fsync", false, "etcd waits for the disk, as it does in earnest")
	slower := flags.Duration("slower-disk", 0, "with -fsync, let each fdatasync of etcd's log take this much longer, such as 1ms")
	dir := flags.String("dir", "", "the `directory` for data, on the disk to measure with -fsync; the system's for temporary files if empty")
	gates := flags.Bool("gateways", false, "compare etcd's gateway with sharder's instead")
	hop := flags.Bool("hop", false, "compare only what stands in front of one etcd: etcd's grpc-proxy and sharder")
	builds := flags.String("builds", "", "with -hop or -gateways, other `programs` to compare, name=path, comma separated: sharders of another build")
	share := flags.Float64("share", 0, "compare one shard with four instead, each with this share of one CPU, such as 0.1")
	if err := flags.Parse(args); err != nil {
		return err
	}
	p := plan{
		cell: time.Duration(*seconds * float64(time.Second)), rounds: *rounds, clients: *clients, watchers: *watchers,
		fsync: *fsync, slower: *slower, dir: *dir, gateways: *gates, hop: *hop, share: *share,
	}
	if p.builds, err = parseBuilds(*builds); err != nil {
		return err
	}
	if p.cell < 50*time.Millisecond || p.rounds < 1 || p.clients < 1 || p.watchers < 1 || p.share < 0 || p.share > 1 {
		return fmt.Errorf("-seconds must be at least 0.05, -rounds, -clients and -watchers at least 1, -share from 0 to 1")
	}
	if len(p.builds) > 0 && !p.hop && !p.gateways {
		return fmt.Errorf("-builds needs -hop or -gateways")
	}
	if p.slower > 0 && !p.fsync {
		return fmt.Errorf("-slower-disk says nothing without -fsync")
	}
	chosen, err := choose(workloads, *only)
	if err != nil {
		return err
	}
	b := &book{plan: p}
	if p.fsync {
		if b.disk, err = measureDisk(p.dir); err != nil {
			return err
		}
	}
	s, err := newStand(ctx, p, p.layout(), stderr)
	if err != nil {
		return err
	}
	defer s.stop()
	b.begun = s.snapshot()
	if err := b.measure(ctx, s.targets, chosen, stderr); err != nil {
		return err
	}
	b.ended = s.snapshot()
	b.print(stdout)
	return b.failures()
}

// layout is what has to stand.
func (p plan) layout() layout {
	switch {
	case p.share > 0:
		return moreShards(p.share)
	case p.gateways:
		return passingOn(p.builds)
	case p.hop:
		return oneHop(p.builds)
	}
	return sideBySide
}

// choose picks workloads by the patterns of -only; none means all.
func choose(all []workload, only string) ([]workload, error) {
	if only == "" {
		return all, nil
	}
	var chosen []workload
	for _, w := range all {
		for pattern := range strings.SplitSeq(only, ",") {
			if ok, err := path.Match(pattern, w.name); err != nil {
				return nil, fmt.Errorf("-only %s: %w", only, err)
			} else if ok {
				chosen = append(chosen, w)
				break
			}
		}
	}
	if len(chosen) == 0 {
		return nil, fmt.Errorf("-only %s: no such workload; there are %s", only, names(all))
	}
	return chosen, nil
}

// names is the workloads' names, for messages.
func names(all []workload) string {
	list := make([]string, len(all))
	for i, w := range all {
		list[i] = w.name
	}
	return strings.Join(list, " ")
}
