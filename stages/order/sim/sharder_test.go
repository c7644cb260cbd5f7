package sim

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"

	"github.com/sharder/sharder/pipeline"
	"github.com/sharder/sharder/stages"
	"github.com/sharder/sharder/stages/order"
	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
)

// sharder is one life of one sharder: the real Order, and the chains of KV around it.
type sharder struct {
	*order.Order
	*process
	name  string
	table *stages.Table
	conns []*conn
	ready chan struct{} // closed when it serves
	parts

	rng pipeline.Stage[*pb.RangeRequest, *pb.RangeResponse]
	put pipeline.Stage[*pb.PutRequest, *pb.PutResponse]
	del pipeline.Stage[*pb.DeleteRangeRequest, *pb.DeleteRangeResponse]
	txn pipeline.Stage[*pb.TxnRequest, *pb.TxnResponse]
}

// parts are the pieces of the chains that a mutant may replace.
type parts struct {
	pin               pipeline.Middleware[*stages.Op, *stages.Reply]
	at, commit, guard pipeline.Middleware[stages.Call, stages.Reply]
	compact           pipeline.Stage[*pb.CompactionRequest, *pb.CompactionResponse]
	endLease          func(ctx context.Context, shards []*stages.Shard, id int64, withOthers bool) error
}

// newSharder makes one that has not begun yet.
func (w *world) newSharder(slot, life int) *sharder {
	s := &sharder{name: fmt.Sprintf("sharder %d.%d", slot, life), ready: make(chan struct{})}
	ctx, kill := context.WithCancel(context.Background())
	s.process = &process{ctx: ctx, kill: kill}
	for _, sh := range w.shards {
		s.conns = append(s.conns, &conn{shard: sh, line: w.line(s, fmt.Sprint("shard", sh.number), sh.away)})
	}
	s.table = w.table(s.conns)
	o := w.options(s)
	if slot == strange {
		o.Fingerprint = "that of a file with other routes"
	}
	if w.mutant != nil && w.mutant.options != nil {
		w.mutant.options(w, &o)
	}
	s.Order = order.New(o)
	s.parts = parts{s.Pin, s.At, s.Commit, s.Guard, s.Compact, s.EndLease}
	if w.mutant != nil && w.mutant.parts != nil {
		w.mutant.parts(s)
	}
	s.chains()
	return s
}

func (w *world) options(s *sharder) order.Options {
	chance := newDice(w.seed, s.name+"waits")
	// In some worlds a batch is rolled back as soon as a shard is silent, so that more fences come late.
	insist := newDice(w.seed, "patience")
	return order.Options{
		FencePatience: pick(insist, time.Nanosecond, time.Nanosecond, 3*time.Second), QueueTimeout: pick(insist, 2*time.Second, 5*time.Second),
		Journal: w.journal(s, "order"), Shards: s.table.Shards(), Fingerprint: w.genesis.Fingerprint,
		Interval: w.plan.interval, CheckpointEntries: w.plan.checkpoint, SweepRuns: w.plan.sweep, SweepDelay: w.plan.sweepDelay,
		Random: func(limit time.Duration) time.Duration { return chance.between(0, limit) },
		Trace:  s.stumble(w, newDice(w.seed, s.name+"steps")),
	}
}

// stumble has the drive of a batch end or sleep after a step, now and then, as if its sharder
// did: others have to go on, and what it does later must do no harm.
func (s *sharder) stumble(w *world, d *dice) func(context.Context, order.Step) error {
	return func(ctx context.Context, step order.Step) error {
		w.steps.note(step)
		switch {
		case w.plan.calm():
		case d.chance(.05):
			return errors.New("it stumbles")
		case d.chance(.1):
			_ = wait(ctx, d.between(0, pick(d, 100*time.Millisecond, 3*time.Second)))
		}
		return nil
	}
}

// steps counts the steps of batches.
type steps struct {
	mu sync.Mutex
	n  map[string]int
}

func (s *steps) note(step order.Step) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.n == nil {
		s.n = map[string]int{}
	}
	s.n["step "+step.Name]++
	if step.Takeover {
		s.n["taken over"]++
	}
	if step.Items > 1 {
		s.n["batches of several"]++
	}
}

// line is a sharder's way to a cluster.
func (w *world) line(s *sharder, to string, away func() bool) *line {
	return &line{from: s.process, dice: newDice(w.seed, s.name+to), weather: w.plan.weather, away: away}
}

func (w *world) journal(s *sharder, purpose string) *journal {
	return &journal{w.log, w.line(s, purpose, w.log.away)}
}

// chains are those of cmd/sharder without door, leases and watches.
func (s *sharder) chains() {
	decode := stages.Decoder{Reserve: true, MaxTxnOps: order.MaxTxnOps}
	read := pipeline.Wrap(stages.CallShard, s.at, stages.Lane)
	write := pipeline.Wrap(stages.CallShard, s.commit, stages.Lane, s.guard)
	route := stages.RouteOp(s.table)
	merged := pipeline.Wrap(pipeline.Chain3(route, pipeline.Scatter(read), stages.MergeRange), stages.RetryWhole)
	s.rng = pipeline.Chain3(decode.Range, pipeline.Wrap(merged, s.pin), stages.EncodeRange)
	s.put = pipeline.Chain5(decode.Put, route, pipeline.Scatter(write), stages.Gather, stages.EncodePut)
	s.Execute(s.table, read, shardLeases{s})
	s.del = pipeline.Chain3(decode.DeleteRange,
		pipeline.Wrap(pipeline.Chain3(route, pipeline.Scatter(write), stages.MergeDelete), s.Transact), stages.EncodeDeleteRange)
	s.txn = pipeline.Chain3(decode.Txn,
		pipeline.Wrap(pipeline.Chain3(route, pipeline.Scatter(write), stages.Gather), s.Transact),
		stages.EncodeTxn)
}

// run is the life of a sharder: it reads the log, writing the first entry if nobody has,
// and serves until it dies.
func (s *sharder) run(w *world) error {
	genesis := w.journal(s, "genesis") // one for all attempts: another one would have the same luck again
	for {
		err := s.Load(s.ctx)
		if errors.Is(err, order.ErrNoLog) {
			_, err = order.Create(s.ctx, genesis, w.genesis)
			if err == nil {
				continue
			}
		}
		if err == nil {
			break
		}
		if s.ctx.Err() != nil {
			return nil
		}
		time.Sleep(20 * time.Millisecond)
	}
	close(s.ready)
	if err := s.Run(s.ctx); !errors.Is(err, context.Canceled) {
		return fmt.Errorf("%s: Run ended: %w", s.name, err)
	}
	return nil
}

// errDied is what a client hears of a sharder that died under it: nothing.
var errDied = status.Error(codes.Unavailable, "the sharder died")

// serve answers one request as the edge does, late if the process is paused.
func (s *sharder) serve(ctx context.Context, r *record) (proto.Message, error) {
	if s.hold() != nil {
		return nil, errDied
	}
	select {
	case <-s.ready:
	case <-ctx.Done():
		return nil, status.FromContextError(ctx.Err()).Err()
	}
	latest := r.deadline
	if now := time.Now(); now.After(latest) {
		latest = now // it came so late
	}
	resp, err := s.handle(ctx, proto.Clone(r.req))
	r.overdue = time.Since(latest)
	if s.hold() != nil {
		return nil, errDied
	}
	return resp, stages.ErrorStatus(err)
}

// hold returns when the process is not paused; an error if it is dead.
func (s *sharder) hold() error {
	for {
		held, dead := s.state()
		if dead {
			return errDied
		}
		if held <= 0 {
			return nil
		}
		time.Sleep(held)
	}
}

func (s *sharder) handle(ctx context.Context, req proto.Message) (proto.Message, error) {
	switch r := req.(type) {
	case *pb.RangeRequest:
		return some(s.rng(ctx, r))
	case *pb.PutRequest:
		return some(s.put(ctx, r))
	case *pb.DeleteRangeRequest:
		return some(s.del(ctx, r))
	case *pb.TxnRequest:
		return some(s.txn(ctx, r))
	case *pb.CompactionRequest:
		return some(s.compact(ctx, r))
	case *pb.LeaseRevokeRequest:
		return some(s.revoke(ctx, r))
	}
	panic(fmt.Sprintf("no chain for %T", req))
}

// idle tells whether no call is under way to a shard.
func (s *sharder) idle() error {
	for _, sh := range s.table.Shards() {
		if n := sh.Lane.Depth() + sh.Lane.Waiting(); n > 0 {
			return fmt.Errorf("%s: %d calls are left in the lane of shard %s", s.name, n, sh.Name)
		}
	}
	return nil
}

// some makes a nil of a type a plain nil.
func some[M proto.Message](m M, err error) (proto.Message, error) {
	if err != nil {
		return nil, err
	}
	return m, nil
}
