package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"os"
	"sync/atomic"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/sharder/sharder/conf"
	"github.com/sharder/sharder/pipeline"
	"github.com/sharder/sharder/stages"
	"github.com/sharder/sharder/stages/backend"
	"github.com/sharder/sharder/stages/order"
)

// orderCluster is the etcd cluster of [order], and the order that its log says. The fleet
// that opened it runs and closes it with its shards. Until join has returned, nothing of
// the order is known and nobody may ask it.
type orderCluster struct {
	ordered
	cluster  *backend.Cluster
	embedded *backend.Embedded // nil if it runs elsewhere
	journal  *order.Etcd
	first    int64 // the revision of the first write, for a deployment that begins
	loaded   atomic.Bool
	told     time.Time // when it was last logged why there is no order yet
}

// openOrder starts or connects the order cluster.
func (f *fleet) openOrder(cfg *conf.Config, log *slog.Logger) error {
	c, e, err := f.openCluster(cfg, cfg.Order.Shard, conf.OrderDir, log)
	home := &stages.Shard{
		Number: stages.OrderCluster, Name: stages.OrderName, Conn: f.counts.Conn(stages.OrderName, c),
		Lane: pipeline.NewLink(cfg.Limits.PerShard, cfg.Limits.PerShardWaiting),
	}
	f.central = &orderCluster{cluster: c, embedded: e, first: cfg.Order.FirstRevision, ordered: ordered{home: home}}
	f.count(home, c, f.central.loaded.Load)
	return err
}

// ordered is what the chains need of the order cluster; nil without one.
func (f *fleet) ordered() *ordered {
	if f.central == nil {
		return nil
	}
	return &f.central.ordered
}

// makeOrder makes the order, whose log is still to be loaded; the table must be there.
func (f *fleet) makeOrder(cfg *conf.Config, log *slog.Logger) {
	c := f.central
	c.journal = order.NewEtcd(c.home.Conn)
	o := order.Options{
		Journal: f.counts.Journal(c.journal), Shards: f.table.Shards(), Fingerprint: f.table.Fingerprint(),
		Interval: cfg.Order.CommitInterval, CheckpointEntries: cfg.Order.CheckpointEntries, BatchItems: cfg.Order.BatchItems,
		Retention: order.Retention(cfg.Order.AutoCompaction),
		Ready:     c.ready, ShardReady: f.shardReady, Term: c.journal.Term, Logger: log,
		Name: processName(cfg), Trace: f.counts.Trace, Finished: f.counts.Finished, FenceWaited: f.counts.FenceWaited(f.names()),
	}
	if o.Interval == 0 {
		o.Interval = -1 // there, 0 is the default
	}
	c.order = order.New(o)
	f.counts.Order(c.order)
}

// processName is what operators know this sharder by: its host, and where clients connect.
func processName(cfg *conf.Config) string {
	host, err := os.Hostname()
	if err != nil {
		return "" // the order knows a default
	}
	l := cfg.Listeners()[0]
	if l.Network == "unix" {
		return host + ":" + l.Address
	}
	_, number, _ := net.SplitHostPort(l.Address) // conf has looked at it
	return host + ":" + number
}

// ready tells why the order cluster can't take an entry at this moment.
func (c *orderCluster) ready() error { return ready(c.cluster) }

// shardReady tells why a shard can't take a write at this moment.
func (f *fleet) shardReady(i int) error {
	if err := f.gates[i].check(); err != nil {
		return err
	}
	return ready(f.clusters[i])
}

// ready tells what is known to be wrong with a cluster.
func ready(c *backend.Cluster) error {
	switch {
	case !c.Healthy():
		return status.Error(codes.Unavailable, "no member answers")
	case c.NoLeader():
		return status.Error(codes.Unavailable, "it has no leader")
	}
	return nil
}

// join is the first claim. With one order it waits for the order cluster as long as it
// takes, since nothing can be served without its log; the log is loaded when join returns.
// Of a deployment that has not begun yet it waits for all shards, too: each of them has to
// be stamped and to tell where it stands before there can be a first entry.
func (f *fleet) join(ctx context.Context, log *slog.Logger) (more bool, err error) {
	for {
		more, err := f.claim(ctx, log)
		switch {
		case f.central == nil:
			return more, err
		case ctx.Err() != nil:
			return false, context.Cause(ctx)
		case err != nil || f.central.loaded.Load():
			return more, err
		}
		select {
		case <-time.After(claimPause):
		case <-ctx.Done():
			return false, context.Cause(ctx)
		}
	}
}

// claimOrdered is claim for a deployment with one order. The shards' stamps are read
// before the order cluster's, which is stamped before any of them: so a shard that is
// stamped under an order cluster that is not tells of an order cluster that was lost.
func (f *fleet) claimOrdered(ctx context.Context, log *slog.Logger) (more bool, err error) {
	found, err := f.readStamps(ctx)
	if err != nil {
		return false, err
	}
	begun, err := f.begun(ctx, found)
	switch {
	case outOfReach(err):
		f.central.tell(log, "waiting for the order cluster; nothing is served before its log was read", err)
		return true, nil
	case err != nil:
		return false, err
	}
	if err := f.examine(ctx, found, begun); err != nil {
		return false, err
	}
	if begun {
		return f.openGates(ctx, found, log)
	}
	if begun, err = f.begin(ctx, found, log); err != nil || !begun {
		return true, err
	}
	return f.claimOrdered(ctx, log) // now with a log
}

// begun loads the order log, and reports whether there is one.
func (f *fleet) begun(ctx context.Context, found *survey) (bool, error) {
	c := f.central
	if c.loaded.Load() {
		return true, nil
	}
	if stamped, err := f.orderStamped(ctx, found); err != nil || !stamped {
		return false, err
	}
	// Loading takes as long as it takes; each call of it is bounded.
	switch err := c.order.Load(ctx); {
	case errors.Is(err, order.ErrNoLog):
		return false, nil
	case err != nil:
		return false, orderError(err)
	}
	if diff := c.order.Genesis().Difference(f.names(), f.table.Fingerprint(), f.table.Describe()); diff != "" {
		return false, errors.New(diff)
	}
	c.loaded.Store(true)
	return true, nil
}

// orderStamped looks whether the order cluster is ours, or free to become it.
func (f *fleet) orderStamped(ctx context.Context, found *survey) (bool, error) {
	c := f.central
	ctx, cancel := context.WithTimeout(ctx, orderTimeout)
	defer cancel()
	if err := c.cluster.CheckVersion(ctx); err != nil {
		return false, err
	}
	want := f.stampOf(c.home.Name)
	want.Deployment = found.deployment
	_, stamped, err := backend.LookupStamp(ctx, c.cluster, want)
	switch {
	case err != nil || stamped:
		return stamped, err
	case found.deployment != "":
		return false, errors.New("the order cluster has no stamp, and the shards have: it lost its data, or it is another cluster than the one they began with; correct the endpoints of [order], or restore it, see docs/operations.md")
	default:
		return false, c.mustBeEmpty(ctx)
	}
}

// orderTimeout bounds the first questions to the order cluster, so that a start that
// waits for it soon says so.
const orderTimeout = 3 * time.Second

// orderError keeps what a gRPC status tells of the order cluster, and says of everything
// else where it comes from.
func orderError(err error) error {
	if errors.Is(err, context.DeadlineExceeded) || errors.Is(err, context.Canceled) {
		return status.FromContextError(err).Err()
	}
	return fmt.Errorf("order log: %w", err)
}

// mustBeEmpty refuses an order cluster that is in use for something else: nobody could
// reach the keys there, and its history is thrown away as soon as sharder needs it no more.
func (c *orderCluster) mustBeEmpty(ctx context.Context) error {
	key, err := backend.Misplaced(ctx, c.cluster, []backend.KeyRange{{}})
	if err == nil && key != nil {
		err = fmt.Errorf("the order cluster holds the key %q: it must be an etcd cluster of its own, without keys; name another one in [order]", key)
	}
	return err
}

// begin begins a deployment once all shards can be reached: they are stamped, and the
// first entry of the log says where each stands. Of several sharders that do this at
// once one writes the entry, and all of them load it.
func (f *fleet) begin(ctx context.Context, found *survey, log *slog.Logger) (begun bool, err error) {
	c := f.central
	for i, why := range found.unreached {
		c.tell(log, "the deployment begins when all shards can be reached", fmt.Errorf("shard %s: %w", f.shards[i].Name, why))
		return false, nil
	}
	ctx, cancel := context.WithTimeout(ctx, claimTimeout)
	defer cancel()
	conns, stamps := append([]grpc.ClientConnInterface{c.cluster}, f.conns()...), []backend.Stamp{f.stampOf(c.home.Name)}
	for _, s := range f.shards {
		stamps = append(stamps, f.stampOf(s.Name))
	}
	id, err := backend.Claim(ctx, conns, stamps)
	if err == nil {
		err = f.writeGenesis(ctx, id, log)
	}
	if outOfReach(err) {
		c.tell(log, "the deployment could not begin yet", err)
		return false, nil
	}
	return err == nil, err
}

// writeGenesis writes the first entry of the log, unless somebody has.
func (f *fleet) writeGenesis(ctx context.Context, deployment string, log *slog.Logger) error {
	g := &order.Genesis{
		Deployment: deployment, Fingerprint: f.table.Fingerprint(), Routes: f.table.Describe(), FirstRevision: f.central.first,
	}
	for i, s := range f.shards {
		at, err := backend.Survey(ctx, f.clusters[i], s.Name)
		if err != nil {
			return err
		}
		g.Shards = append(g.Shards, order.GenesisShard{
			Name: s.Name, ClusterID: at.ClusterID, Revision: at.Revision, Compacted: at.Compacted, Internal: []int64{at.Stamped},
		})
	}
	created, err := order.Create(ctx, f.central.journal, g)
	if created {
		log.Info("the deployment begins", "deployment", deployment, "shards", len(g.Shards))
	}
	return err
}

// openGates lets requests through to the shards that are ours.
func (f *fleet) openGates(ctx context.Context, found *survey, log *slog.Logger) (more bool, err error) {
	for i, s := range f.shards {
		switch why := found.unreached[i]; {
		case f.gates[i].open.Load():
		case why != nil:
			f.gates[i].keep(why)
			log.Warn("shard is out of reach; its keys are refused until its stamp can be checked", "shard", s.Name, "error", why)
			more = true
		default:
			f.inspect(ctx, i, log)
			f.gates[i].open.Store(true)
		}
	}
	return more, nil
}

// inspect compares where a shard stands with what the log says of it. One that went back
// in time raises the alarm of the order, and is refused from there on; the others serve.
func (f *fleet) inspect(ctx context.Context, i int, log *slog.Logger) {
	ctx, cancel := context.WithTimeout(ctx, claimTimeout)
	defer cancel()
	g, s := f.central.order.Genesis().Shards[i], f.shards[i]
	if at, err := backend.Survey(ctx, f.clusters[i], s.Name); err == nil && at.ClusterID != g.ClusterID {
		log.Warn("the shard is another etcd cluster than the one the deployment began with; was it restored?", "shard", s.Name, "cluster", fmt.Sprintf("%x", at.ClusterID), "before", fmt.Sprintf("%x", g.ClusterID))
	}
	if err := f.central.order.Inspect(ctx, i, f.clusters[i]); err != nil {
		log.Warn("the shard does not stand where the order log says", "shard", s.Name, "error", err)
	}
}

// tellPause is the time between two log lines that say what a start waits for.
const tellPause = 5 * time.Second

// tell logs why there is no order yet, now and then.
func (c *orderCluster) tell(log *slog.Logger, what string, why error) {
	if now := time.Now(); now.Sub(c.told) >= tellPause {
		c.told = now
		log.Warn(what, "error", why)
	}
}
