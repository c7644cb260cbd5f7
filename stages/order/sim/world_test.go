package sim

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/sourcegraph/conc"
	"google.golang.org/grpc"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"

	"github.com/sharder/sharder/pipeline"
	"github.com/sharder/sharder/stages"
	"github.com/sharder/sharder/stages/order"
	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
)

// plan is what a run is like.
type plan struct {
	shards, sharders, clients, ops int
	keys                           int     // on each shard, or one less
	wide                           float64 // chance that a request is a Txn over several shards
	ends                           float64 // chance that a request has a lease end
	weather                        weather
	lag                            time.Duration // of the shards' members
	think                          time.Duration // of a client between two requests
	trouble                        time.Duration // between two troubles, on average; 0: none
	directs                        int           // writes past all sharders
	adopted                        int           // writes on each shard before there was an order
	compacted                      int64         // the revision up to which the shards were compacted before
	firstRevision                  int64
	stranger                       bool // whether there is a sharder with other routes
	observed                       bool // whether each sharder has somebody who waits for revisions
	interval                       time.Duration
	checkpoint, sweep              int
	sweepDelay                     time.Duration
}

func newPlan(d *dice) plan {
	p := plan{
		shards: 2 + d.n(2), sharders: 2 + d.n(2), clients: 3 + d.n(4), ops: 4 + d.n(6),
		keys:  pick(d, 2, 2, 5),
		wide:  pick(d, .1, .4),
		ends:  pick(d, .02, .02, .12),
		lag:   pick(d, 0, 5*time.Millisecond, 100*time.Millisecond),
		think: pick(d, 0, 3*time.Millisecond, 50*time.Millisecond, 500*time.Millisecond),
		// Most of the rules are broken by interleavings alone; troubles hide these.
		trouble:  pick(d, 0, 0, 2*time.Second, 300*time.Millisecond),
		directs:  pick(d, 0, 0, 3),
		stranger: d.chance(.2),
		observed: d.chance(.5),
		adopted:  pick(d, 0, 0, 2),
		interval: pick(d, -1, 2*time.Millisecond, 20*time.Millisecond),
		sweep:    pick(d, 1, 5, 1000), sweepDelay: pick(d, 20*time.Millisecond, 300*time.Millisecond), checkpoint: pick(d, 2, 10, 1000),
	}
	if d.chance(.15) {
		p.clients, p.wide, p.keys = 12, .6, 5 // what waits goes into batches together
	}
	if p.adopted > 0 {
		p.compacted = pick(d, int64(0), 2, 3)
	}
	p.firstRevision = pick(d, int64(0), 0, 0, 30)
	p.weather.slow = pick(d, 0, .05, .3)
	if p.trouble > 0 {
		p.weather.lost, p.weather.late = pick(d, 0, .02, .1), pick(d, 0, .02, .1)
	}
	return p
}

// calm tells that nothing is lost and nobody dies.
func (p plan) calm() bool { return p.trouble == 0 }

// world is one run: clusters, sharders, clients, and what has happened so far.
type world struct {
	seed    uint64
	plan    plan
	mutant  *mutant
	dice    *dice
	log     *orderLog
	shards  []*shard
	keys    []string
	genesis *order.Genesis

	tick    atomic.Int64 // counts the beginnings and ends of requests
	history history
	seen    seen
	steps   steps

	mu       sync.Mutex
	sharders []*sharder // the present ones, by slot
	stranger *sharder   // one with other routes, if there is one
	lives    int
	running  conc.WaitGroup
	failed   error // the first thing that went wrong outside of requests
	judge    *check
}

// counts tells how much of what there was.
func (w *world) counts() map[string]int {
	n := map[string]int{"requests": len(w.history.all), "entries": len(w.log.entries), "deaths": w.lives - len(w.sharders)}
	if w.log.checkpoint.Text != nil {
		n["checkpoints"]++
	}
	if w.log.checkpoint.Swept > 0 {
		n["sweeps"]++
	}
	for what, k := range w.steps.n {
		n[what] += k
	}
	for _, r := range w.history.all {
		if isWide(r.req) {
			n["wide"]++
		}
		switch {
		case r.err != nil:
			n["failed"]++
			n[status.Code(r.err).String()]++
		case wrote(r.resp):
			n["writes"]++
		default:
			n["reads"]++
		}
	}
	if w.judge != nil && w.judge.truth != nil {
		n["revisions"] = int(w.judge.top) - 1
		for _, r := range w.judge.owner {
			if r.err != nil {
				n["unanswered writes"]++
			}
		}
	}
	return n
}

// simulate runs one seed from beginning to end, and gives what was violated.
func simulate(t *testing.T, dir string, seed uint64, m *mutant) (w *world, err error) {
	synctest.Test(t, func(*testing.T) {
		defer func() {
			if p := recover(); p != nil {
				err = fmt.Errorf("panic: %v", p)
			}
		}()
		w = newWorld(dir, seed, m)
		defer w.close()
		err = w.run()
	})
	return w, err
}

func newWorld(dir string, seed uint64, m *mutant) *world {
	d := newDice(seed, "world")
	w := &world{seed: seed, mutant: m, dice: d, plan: newPlan(d)}
	w.log = newOrderLog(newDice(seed, "order cluster"))
	for i := range w.plan.shards {
		w.shards = append(w.shards, &shard{
			number: i, dice: newDice(seed, name(i)), lag: w.plan.lag,
			store: newStore(filepath.Join(dir, fmt.Sprintf("%d-%d", seed, i))),
		})
		for k := range w.plan.keys - d.n(2) {
			w.keys = append(w.keys, fmt.Sprintf("%s%d", name(i), k))
		}
	}
	w.prepare()
	return w
}

func name(i int) string { return string(rune('a' + i)) }

// table makes the routes: keys that begin with "a" are on the first shard, and so on.
func (w *world) table(conns []*conn) *stages.Table {
	var shards []*stages.Shard
	var routes []stages.Route
	for i := range w.shards {
		var c grpc.ClientConnInterface
		if conns != nil {
			c = conns[i]
		}
		shards = append(shards, &stages.Shard{Number: i, Name: name(i), Conn: c, Lane: pipeline.NewLink(8, 64)})
		routes = append(routes, stages.Route{Key: []byte(name(i)), Shards: []string{name(i)}})
	}
	routes[0].Key = nil
	t, err := stages.NewTable(routes, shards)
	if err != nil {
		panic(err)
	}
	return t
}

// prepare gives the shards what they hold before there is an order, and their stamps.
func (w *world) prepare() {
	w.genesis = &order.Genesis{Deployment: "00c0ffee00000001", Fingerprint: w.table(nil).Fingerprint(), FirstRevision: w.plan.firstRevision}
	for i, s := range w.shards {
		for n := range w.plan.adopted {
			w.must(s, &pb.PutRequest{Key: []byte(name(i) + "0"), Value: fmt.Appendf(nil, "adopted%d.%d", i, n)})
		}
		w.must(s, &pb.TxnRequest{Success: []*pb.RequestOp{
			put(&pb.PutRequest{Key: []byte(order.RoutesKey), Value: []byte(w.genesis.Fingerprint)}),
			put(&pb.PutRequest{Key: []byte(stages.ClosedKey), Value: []byte(stages.NoneClosed)}),
		}})
		if w.plan.compacted > 0 {
			w.must(s, &pb.CompactionRequest{Revision: w.plan.compacted})
		}
		w.genesis.Shards = append(w.genesis.Shards, order.GenesisShard{
			Name: name(i), ClusterID: s.id(), Revision: s.head(), Internal: []int64{s.head()}, Compacted: w.plan.compacted,
		})
	}
}

func (w *world) must(s *shard, r proto.Message) {
	if _, err := s.serve(r); err != nil {
		panic(err)
	}
}

func (w *world) close() {
	for _, s := range w.shards {
		s.store.close()
	}
}

// start begins a new life of a sharder; it replaces the one before in its slot.
func (w *world) start(slot int) {
	w.mu.Lock()
	s := w.newSharder(slot, w.lives)
	w.lives++
	if slot < len(w.sharders) {
		w.sharders[slot] = s
	} else {
		w.sharders = append(w.sharders, s)
	}
	w.mu.Unlock()
	w.running.Go(func() { w.fail(s.run(w)) })
	if w.plan.observed {
		w.running.Go(func() { w.fail(w.observe(s)) })
	}
}

// strange is the slot of the sharder with other routes, and its client's number.
const strange = -1

func (w *world) anySharder(d *dice) *sharder { return w.sharder(d.n(w.plan.sharders)) }

func (w *world) sharder(slot int) *sharder {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.sharders[slot]
}

// fail notes the first error.
func (w *world) fail(err error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.failed == nil {
		w.failed = err
	}
}

// run lets everything happen, then heals everything, and judges.
func (w *world) run() error {
	for slot := range w.plan.sharders {
		w.start(slot)
	}
	ctx, stop := context.WithCancel(context.Background())
	var troubles, clients conc.WaitGroup
	troubles.Go(func() { w.makeTrouble(ctx) })
	troubles.Go(func() { w.writeDirectly(ctx) })
	for n := range w.plan.clients {
		clients.Go(func() { w.client(n, w.anySharder) })
	}
	if w.plan.stranger {
		w.stranger = w.newSharder(strange, 0)
		w.running.Go(func() { w.fail(w.stranger.run(w)) })
		clients.Go(func() { w.client(strange, func(*dice) *sharder { return w.stranger }) })
	}
	clients.Wait()
	stop()
	troubles.Wait()
	err := w.settle()
	w.mu.Lock()
	last, failed := w.sharders, w.failed
	w.mu.Unlock()
	if err == nil && failed == nil {
		w.judge = newCheck(w, last)
		err = w.judge.all()
	}
	for _, s := range last {
		s.die()
	}
	if w.stranger != nil {
		w.stranger.die()
	}
	w.running.Wait()
	return errors.Join(failed, err)
}
