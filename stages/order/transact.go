package order

import (
	"context"
	"errors"
	"slices"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"

	"github.com/sharder/sharder/pipeline"
	"github.com/sharder/sharder/stages"
	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"
)

// Transact is the way of a Txn or a DeleteRange over several shards; one that lies on one
// shard goes to next, as a rule (see looksAhead). It is a pipeline.Middleware[*stages.Op, *stages.Reply] around
// everything from route to gather; Execute is called before.
//
// What turns out to write nothing is answered from one cut. Everything else is put into a
// batch (queue.go), and answered once that is decided: from what the shards held at its
// fences, with its own writes on top, whoever makes them. An error before the batch
// is decided says that nothing was done, unless it says that the outcome is unknown; after
// that it never denies what happened.
func (o *Order) Transact(next pipeline.Stage[*stages.Op, *stages.Reply]) pipeline.Stage[*stages.Op, *stages.Reply] {
	return func(ctx context.Context, op *stages.Op) (*stages.Reply, error) {
		txn := txnOf(op.Request)
		shards := shardsOf(o.executor.table, txn)
		if len(shards) == 0 || len(shards) == 1 && !looksAhead(txn, o.revision()) {
			return next(ctx, op)
		}
		t := &transaction{order: o, txn: txn, shards: shards}
		resp, err := t.run(ctx)
		if err != nil {
			return nil, err
		}
		return &stages.Reply{Op: op, Response: answerTo(op.Request, resp)}, nil
	}
}

// looksAhead tells whether a Txn filters a range by a revision that is not given out yet,
// and writes. Whether it finds its own writes then depends on the revision that it gets,
// which its shard does not know.
func looksAhead(txn *pb.TxnRequest, newest int64) bool {
	ahead, writes := false, false
	eachSpan(txn, func(_, _ []byte, op *pb.RequestOp) {
		if r := op.GetRequestRange(); r != nil {
			ahead = ahead || max(bound(r.MinModRevision), bound(r.MinCreateRevision), bound(r.MaxModRevision), bound(r.MaxCreateRevision)) > newest
		} else if op != nil {
			writes = true
		}
	})
	return ahead && writes
}

// txnOf is a request as a Txn. A DeleteRange is one with a single operation.
func txnOf(op *pb.RequestOp) *pb.TxnRequest {
	if txn := op.GetRequestTxn(); txn != nil {
		return txn
	}
	return &pb.TxnRequest{Success: []*pb.RequestOp{op}}
}

// answerTo is the answer to a request that was done as the Txn of txnOf.
func answerTo(op *pb.RequestOp, resp *pb.TxnResponse) *pb.ResponseOp {
	if op.GetRequestTxn() != nil {
		return &pb.ResponseOp{Response: &pb.ResponseOp_ResponseTxn{ResponseTxn: resp}}
	}
	answer := resp.Responses[0]
	setHeader(answer, resp.Header)
	return answer
}

// transaction is one Txn over several shards on behalf of its client.
type transaction struct {
	order  *Order
	txn    *pb.TxnRequest
	shards []int // ascending
}

// run does it, anew where it could not be done as it was prepared.
func (t *transaction) run(ctx context.Context) (resp *pb.TxnResponse, err error) {
	began, outcome := time.Now(), again
	for try := 1; outcome == again; try++ {
		resp, outcome, err = t.attempt(ctx)
		if outcome == again && (try == retries || sleep(ctx, t.order.opts.Random(backOff)) != nil) {
			outcome = RolledBack
		}
	}
	t.order.finished(outcome, began)
	return resp, err
}

// attempt does it once; its results are those of write.
func (t *transaction) attempt(ctx context.Context) (*pb.TxnResponse, string, error) {
	if err := checkWrites(t.txn); err != nil {
		return nil, Aborted, err
	}
	if err := t.possible(); err != nil {
		return nil, RolledBack, err
	}
	resp, err := t.order.executor.glance(ctx, t.txn)
	switch {
	case resp != nil || dependsOnState(err):
		return resp, Aborted, err
	case err != nil:
		return nil, RolledBack, err
	}
	return t.write(ctx)
}

// again is the outcome of a transaction of which nothing happened and that is begun anew.
const again = ""

// How often a transaction is tried of which nothing happened, and how long it rests before
// the next time at most.
const (
	retries = 10
	backOff = 20 * time.Millisecond
)

// possible tells why the transaction can't be done at present.
func (t *transaction) possible() error {
	o := t.order
	if err := o.usable(); err != nil {
		return err
	}
	for _, n := range t.shards {
		if err := o.alarmed(n); err != nil {
			return err
		}
		if err := o.held(n); err != nil {
			return t.away(n, err)
		}
	}
	return nil
}

// away is the error for a shard that can't take part.
func (t *transaction) away(shard int, err error) error {
	if isEtcd(err, rpctypes.ErrGRPCNoSpace) {
		return rpctypes.ErrGRPCNoSpace
	}
	s := t.order.opts.Shards[shard]
	return refuse(codes.Unavailable, "transaction over several shards: shard %s, which holds %q, is away: %s; nothing was done",
		s.Name, t.keyOn(shard), status.Convert(stages.ErrorStatus(err)).Message())
}

// keyOn is a key of the transaction on a shard.
func (t *transaction) keyOn(shard int) (found []byte) {
	eachSpan(t.txn, func(key, end []byte, _ *pb.RequestOp) {
		for _, p := range t.order.executor.table.Range(key, end) {
			if found == nil && p.Shard.Number == shard {
				found = p.Key
			}
		}
	})
	return found
}

// write has the transaction done in a batch, and gives its answer. With the outcome again
// nothing of it happened and it may go well the next time; the error is what to say if
// there is none.
func (t *transaction) write(ctx context.Context) (*pb.TxnResponse, string, error) {
	o := t.order
	it, err := t.prepare(ctx)
	if err != nil {
		return nil, RolledBack, err
	}
	j := &job{item: it, shards: t.shards, touched: touches(t.txn), bytes: proto.Size(t.txn), done: make(chan ending, 1)}
	if !o.queue.put(j) {
		return nil, RolledBack, errStopping
	}
	select {
	case end := <-j.done:
		return t.answer(ctx, end)
	case <-ctx.Done():
	}
	if o.queue.withdraw(j) {
		return nil, RolledBack, ctxError(ctx, "it has waited for others; nothing was done")
	}
	return nil, Failed, ctxError(ctx, "outcome unknown: it has begun")
}

// ctxError is the error for a client that has no time left.
func ctxError(ctx context.Context, what string) error {
	return refuse(status.FromContextError(ctx.Err()).Code(), "transaction over several shards: %s", what)
}

// prepare makes the item of the transaction, with the leases of its Puts bound. One that
// does not exist stays unbound: a Put with it may be in the branch that is not taken.
func (t *transaction) prepare(ctx context.Context) (item, error) {
	it := item{Txn: t.txn}
	binds := bindsOf(t.order.executor.table, t.txn)
	ids, err := some(ctx, binds, func(ctx context.Context, b bind) (*int64, error) {
		id, ok, err := t.order.leases.Bind(ctx, t.order.opts.Shards[b.shard], b.lease)
		if !ok {
			return nil, err
		}
		return &id, err
	})
	for i, id := range ids {
		if id != nil {
			it.bound(binds[i], *id)
		}
	}
	return it, err
}

// bindsOf are the leases of a Txn's Puts, in any branch, each once for a shard.
func bindsOf(t *stages.Table, txn *pb.TxnRequest) (all []bind) {
	eachSpan(txn, func(key, _ []byte, op *pb.RequestOp) {
		p := op.GetRequestPut()
		if p == nil || p.Lease == 0 {
			return
		}
		if b := (bind{p.Lease, t.Lookup(key).Number}); !slices.Contains(all, b) {
			all = append(all, b)
		}
	})
	return all
}

// answer is what the client is told of a job that ended.
func (t *transaction) answer(ctx context.Context, end ending) (*pb.TxnResponse, string, error) {
	if end.batch == nil {
		return t.undone(end.outcome, end.err)
	}
	b, i := end.batch, end.index
	out := b.Ends[i]
	switch {
	case out.Again:
		return nil, again, refuse(codes.Unavailable, "transaction over several shards: a lease of it comes to its end; nothing was done")
	case out.Error != "":
		return nil, Aborted, etcdError(out.Error)
	}
	wrote := len(out.Writes) > 0
	resp, err := t.order.executor.reply(ctx, t.txn, out.Path, t.order.cutOf(b), b.revision(i), wrote)
	switch {
	case err == nil && wrote:
		return resp, Committed, nil
	case err == nil:
		return resp, Aborted, nil
	case wrote:
		return nil, Failed, t.unanswered(ctx, b.revision(i), err)
	case isOvertaken(err):
		return nil, again, errOvertaken
	}
	return nil, Failed, err
}

// undone is what the client is told of a batch that was rolled back, or of which nothing is
// known. If that was for a shard that does not answer, he is told which, and a key there; if
// only others in the batch need that shard, or another sharder did it for reasons of its
// own, it is worth another try.
func (t *transaction) undone(outcome string, err error) (*pb.TxnResponse, string, error) {
	var where *stages.ShardError
	switch {
	case outcome != RolledBack:
	case errors.Is(err, errElsewhere):
		outcome = again
	case isOvertaken(err):
		outcome, err = again, errOvertaken
	case errors.As(err, &where) && !slices.Contains(t.shards, where.Shard.Number):
		outcome = again
	case where != nil && isAway(err):
		err = t.away(where.Shard.Number, where.Err)
	}
	return nil, outcome, err
}

// isAway tells whether an error says that nobody answered in time.
func isAway(err error) bool {
	switch status.Code(stages.ErrorStatus(err)) {
	case codes.Unavailable, codes.DeadlineExceeded, codes.Canceled:
		return true
	}
	return false
}

// unanswered is the error for a transaction that is done and whose answer can't be told.
func (t *transaction) unanswered(ctx context.Context, revision int64, err error) error {
	code := codes.Unavailable
	if ctx.Err() != nil {
		code = status.FromContextError(ctx.Err()).Code()
	}
	return refuse(code, "transaction over several shards: done at revision %d, but there is no answer: %s",
		revision, status.Convert(stages.ErrorStatus(err)).Message())
}

// cutOf is the state that the items of a decided batch were evaluated on; what it says of
// other shards than the batch's is of no meaning.
func (o *Order) cutOf(b *batch) stages.Cut {
	cut := stages.Cut{Revision: b.Base, At: make([]int64, len(o.opts.Shards)), Compacted: o.Compacted()}
	for _, f := range b.Fences {
		cut.At[f.Shard] = f.Revision
	}
	return cut
}

// Execute says what it takes to do transactions over several shards: the routes, the way
// of a call that reads one shard at a cut (At is in it), and who knows the leases; nil is
// leases that are the same everywhere. It is called once, before Run.
func (o *Order) Execute(t *stages.Table, read pipeline.Stage[stages.Call, stages.Reply], l Leases) {
	if l == nil {
		l = plainLeases{}
	}
	o.executor, o.leases = newExecutor(o, t, read), l
}
