package backend

import (
	"context"
	"errors"
	"slices"
	"time"

	"github.com/sourcegraph/conc"
)

const (
	// retirePeriod is how long calls and streams under way have to end on a member that is
	// no longer one of the endpoints. Those that don't end by themselves, such as watches,
	// end with Unavailable then, and are opened elsewhere.
	retirePeriod = 10 * time.Second
	// retirePause is how often it is looked whether they have.
	retirePause = 20 * time.Millisecond
)

// errRetired is why calls and streams end on a member that is no longer an endpoint.
var errRetired = errors.New("it is no longer one of the endpoints")

// keeper keeps the roster of a cluster as the sources of endpoints say: what was written
// or discovered, or what the cluster itself says of its members. It belongs to Run, and
// its methods to the goroutine of run; what they start, wg waits for.
//
// Members that are to go stay until one of those that are to stay answers: a slip in DNS,
// or a cluster that tells addresses which can't be reached from here, takes nothing away.
type keeper struct {
	cluster *Cluster
	wg      *conc.WaitGroup
	found   []endpoint // by discovery
	synced  []endpoint // what the cluster says
}

// run keeps the roster until ctx ends.
func (k *keeper) run(ctx context.Context) {
	c := k.cluster
	for _, s := range c.roster.Load().seats {
		k.start(ctx, s.member)
	}
	lookup, sync := k.timer(c.opts.DiscoverySRV != ""), k.timer(c.opts.AutoSyncInterval > 0)
	defer lookup.Stop()
	defer sync.Stop()
	check := time.NewTicker(c.opts.HealthInterval)
	defer check.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-c.closed:
			return
		case <-c.fresh:
			k.synced = nil // it may be of a cluster that is not meant any more
		case <-check.C:
		case <-lookup.C:
			lookup.Reset(k.lookup(ctx))
		case <-sync.C:
			sync.Reset(k.sync(ctx))
		}
		k.reconcile(ctx)
	}
}

// timer is one that fires at once, or never.
func (k *keeper) timer(now bool) *time.Timer {
	t := time.NewTimer(0)
	if !now {
		t.Stop()
	}
	return t
}

// base is what was written or discovered.
func (k *keeper) base() []endpoint {
	if k.cluster.opts.DiscoverySRV != "" {
		return k.found
	}
	return *k.cluster.fixed.Load()
}

// reconcile makes the roster what it should be at this moment.
func (k *keeper) reconcile(ctx context.Context) {
	now, want := k.cluster.roster.Load(), k.base()
	if len(k.synced) > 0 {
		want = k.synced
	}
	if !answers(now, want) {
		want = k.withReserve(now, want)
	}
	if len(want) == 0 || now.is(want) {
		return
	}
	came, went, err := k.cluster.swap(want)
	if err != nil {
		if ctx.Err() == nil && !errors.Is(err, errClosed) {
			k.cluster.opts.Logger.Error("the endpoints can't be used", "shard", k.cluster.opts.Name, "error", err)
		}
		return
	}
	for _, m := range came {
		k.cluster.opts.Logger.Info("new endpoint", "shard", k.cluster.opts.Name, "endpoint", m.endpoint)
		k.start(ctx, m)
	}
	for _, m := range went {
		k.cluster.opts.Logger.Info("no longer an endpoint", "shard", k.cluster.opts.Name, "endpoint", m.endpoint)
		k.wg.Go(func() { k.cluster.retire(ctx, m) })
	}
}

// answers reports whether one of the endpoints has a member that is up.
func answers(r *roster, eps []endpoint) bool {
	return slices.ContainsFunc(eps, func(e endpoint) bool {
		m := r.find(e)
		return m != nil && m.now().health == up
	})
}

// withReserve adds, to endpoints none of which answers, members that do, and what was
// written or discovered.
func (k *keeper) withReserve(now *roster, want []endpoint) []endpoint {
	all := slices.Clone(want)
	add := func(e endpoint) {
		if !slices.ContainsFunc(all, func(have endpoint) bool { return have.key() == e.key() }) {
			all = append(all, e)
		}
	}
	for _, s := range now.seats {
		if s.now().health == up {
			e := s.at
			e.priority, e.weight, e.cluster = s.priority, s.weight, s.cluster.Load()
			add(e)
		}
	}
	for _, e := range k.base() {
		add(e)
	}
	return all
}

// start has a member probed until it is retired or ctx ends.
func (k *keeper) start(ctx context.Context, m *member) {
	k.wg.Go(func() { k.cluster.watch(ctx, m) })
}

// retire ends a member that is no longer in the roster: what is under way on it may end,
// within a bound.
func (c *Cluster) retire(ctx context.Context, m *member) {
	close(m.gone)
	late := time.NewTimer(c.grace)
	defer late.Stop()
	look := time.NewTicker(retirePause)
	defer look.Stop()
	for waiting := true; waiting && m.busy.Load() > 0; {
		select {
		case <-ctx.Done():
			waiting = false
		case <-c.closed:
			waiting = false
		case <-late.C:
			waiting = false
		case <-look.C:
		}
	}
	m.shut()
	m.kill(errRetired)
	if err := m.conn.Close(); err != nil {
		c.opts.Logger.Warn("closing a connection", "shard", c.opts.Name, "endpoint", m.endpoint, "error", err)
	}
	m.meter.Gone()
}
