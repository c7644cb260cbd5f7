package order_test

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/sourcegraph/conc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/sharder/sharder/stages/order"
	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	clientv3 "go.etcd.io/etcd/client/v3"
)

// scene is a transaction over three shards that passes every step there is, and two sharders:
// one is asked to do it, and has its troubles; the other has to see to it that it is
// done once. It reads, puts and deletes, and before its fences something lies
// that is not covered.
//
// The other hears nothing of the log before it is let: on a slow machine it would do all before
// the troubles begin.
type scene struct {
	*rig
	asked, other *sharder
	txn          *pb.TxnRequest
	revision     int64 // what it gets
	let          func()
}

func newScene(t *testing.T, opts func(*order.Options)) *scene {
	r := newRig(t, 3)
	quiet := func(o *order.Options) { o.ProbeInterval = time.Hour }
	hears := make(chan struct{})
	sc := &scene{rig: r, revision: 5, let: sync.OnceFunc(func() { close(hears) })}
	sc.asked = r.sharder(func(o *order.Options) { quiet(o); opts(o) })
	log := &wire{}
	sc.other = r.sharder(quiet, onShard(-1, log)) // which loads the log
	log.setStream(func(ctx context.Context) error {
		select {
		case <-hears:
		case <-ctx.Done():
		}
		return ctx.Err()
	})
	r.Put(sc.asked, "a", "1")
	r.Put(sc.asked, "b1", "1")
	if _, err := r.etcds[0].Client().Put(r.ctx(), "a0", "past all sharders"); err != nil {
		t.Fatal(err)
	}
	sc.txn = &pb.TxnRequest{
		Compare: []*pb.Compare{modIs("a", pb.Compare_EQUAL, 2)},
		Success: []*pb.RequestOp{putOp("a", "2"), delOp("b", "c"), putOp("c", "2"), rangeOp("a", "z")},
	}
	return sc
}

// finished waits until no batch is open that a sharder finds in the log.
func (r *rig) finished(s *sharder) {
	r.t.Helper()
	for {
		_, err := s.Now(r.ctx()) // fails while the order cluster is away
		st, _ := s.Status()
		if err == nil && len(st.Open) == 0 {
			return
		}
		if r.ctx().Err() != nil {
			r.t.Fatalf("still open: %+v", st.Open)
		}
		time.Sleep(5 * time.Millisecond)
	}
}

// clean tells that no shard has a fence.
func (r *rig) clean() {
	r.t.Helper()
	for i, e := range r.etcds {
		resp, err := e.Client().Get(r.ctx(), order.FenceKey)
		if err != nil || len(resp.Kvs) > 0 {
			r.t.Errorf("shard %s: %v, %v", name(i), resp, err)
		}
	}
}

// records are the records that are in the order cluster.
func (r *rig) records() (keys []string) {
	r.t.Helper()
	resp, err := r.order.Client().Get(r.ctx(), order.RecordPrefix, clientv3.WithPrefix(), clientv3.WithKeysOnly())
	if err != nil {
		r.t.Fatal(err)
	}
	for _, kv := range resp.Kvs {
		keys = append(keys, string(kv.Key))
	}
	return keys
}

// done judges what there is when all is over: the transaction was done, and once.
func (sc *scene) done(records int) {
	sc.t.Helper()
	sc.finished(sc.other)
	want := "a=2@2/5 a0=past all sharders@4/4 c=2@5/5 at 5"
	if got := sc.Range(sc.other, "a", "z"); got != want {
		sc.t.Errorf("%q, want %q", got, want)
	}
	if next := sc.Put(sc.other, "c1", ""); next != sc.revision+1 {
		sc.t.Errorf("the next revision is %d", next)
	}
	sc.clean()
	// Who ended it drops its record behind that.
	sc.eventually("its record is gone", func() bool { return len(sc.records()) <= records })
}

// answered judges an answer to the transaction.
func (sc *scene) answered(resp *pb.TxnResponse) {
	sc.t.Helper()
	if !resp.Succeeded || resp.Header.Revision != sc.revision || len(resp.Responses) != 4 {
		sc.t.Fatalf("the answer is %v", resp)
	}
	if prev := resp.Responses[1].GetResponseDeleteRange().PrevKvs; len(prev) != 1 || prev[0].ModRevision != 3 {
		sc.t.Errorf("deleted were %v", prev)
	}
	var read []string
	for _, kv := range resp.Responses[3].GetResponseRange().Kvs {
		read = append(read, fmt.Sprintf("%s@%d", kv.Key, kv.ModRevision))
	}
	if got := strings.Join(read, " "); got != "a@5 a0@4 c@5" {
		sc.t.Errorf("read were %s", got)
	}
}

func TestATransactionIsDoneOnceWhereverItsCoordinatorDies(t *testing.T) {
	for _, step := range order.Steps {
		t.Run(step, func(t *testing.T) {
			t.Parallel()
			dead := make(chan struct{})
			var died atomic.Bool
			sc := newScene(t, func(o *order.Options) {
				o.Trace = func(_ context.Context, s order.Step) error {
					if s.Name == step && died.CompareAndSwap(false, true) {
						close(dead)
					}
					if died.Load() {
						return errors.New("dead")
					}
					return nil
				}
			})
			var wg conc.WaitGroup
			wg.Go(func() {
				select {
				case <-dead:
				case <-sc.ctx().Done():
					t.Error("it does not come to the step")
				}
				sc.let()
				sc.asked.end()
			})
			resp, err := sc.asked.txn(sc.ctx(), sc.txn)
			wg.Wait()
			switch {
			case err == nil:
				sc.answered(resp)
			case status.Code(err) != codes.Unavailable || !strings.Contains(err.Error(), "outcome unknown"):
				t.Errorf("the client was told: %v", err)
			}
			left := 0
			if step == order.StepClose {
				left = 1 // it died between the two; the sweep finds it
			}
			sc.done(left)
		})
	}
}

func TestATransactionIsDoneOnceWhereverItsCoordinatorSleeps(t *testing.T) {
	for _, step := range order.Steps {
		t.Run(step, func(t *testing.T) {
			t.Parallel()
			b := newBrake(step)
			sc := newScene(t, b.options)
			var wg conc.WaitGroup
			var resp *pb.TxnResponse
			var err error
			wg.Go(func() { resp, err = sc.asked.txn(sc.ctx(), sc.txn) })
			b.await(sc.ctx(), t)
			sc.let()
			sc.finished(sc.other)
			close(b.release)
			wg.Wait()
			if err != nil {
				t.Fatal(err)
			}
			sc.answered(resp)
			sc.done(0)
			if st, _ := sc.other.Status(); step != order.StepClose && st.Takeovers == 0 {
				t.Error("nobody took it over")
			}
		})
	}
}

// A batch of which only the entry is there has nobody who would be answered. That it is
// done all the same shows that the record suffices.
func TestASharderThatStartsFinishesWhatItFinds(t *testing.T) {
	t.Parallel()
	b := newBrake(order.StepOpen)
	r := newRig(t, 2)
	s := r.sharder(b.options)
	errs := make(chan error, 1)
	var wg conc.WaitGroup
	wg.Go(func() {
		_, err := s.txn(r.ctx(), puts("1", "a", "b"))
		errs <- err
	})
	b.await(r.ctx(), t)
	s.end()
	wg.Wait()
	if err := <-errs; !strings.Contains(err.Error(), "outcome unknown") {
		t.Errorf("the client was told: %v", err)
	}
	var log strings.Builder
	next := r.sharder(func(o *order.Options) { o.Logger = slog.New(slog.NewTextHandler(&log, nil)) })
	r.finished(next)
	if got, want := r.Range(next, "a", "z"), "a=1@2/2 b=1@2/2 at 2"; got != want {
		t.Errorf("%q, want %q", got, want)
	}
	r.clean()
	next.end()
	for _, word := range []string{"taking over a transaction", "coordinator=", "step=active", "shards=\"[a b]\""} {
		if !strings.Contains(log.String(), word) {
			t.Errorf("the log has no %s: %s", word, &log)
		}
	}
}

// Every batch is driven by its coordinator and by another sharder at once, from its first
// moment to its last.
func TestTwoShardersDriveEveryBatchAtOnce(t *testing.T) {
	t.Parallel()
	const clients, rounds = 6, 15
	r := newRig(t, 3)
	all := []*sharder{r.sharder(nil), r.sharder(nil), r.sharder(nil)}
	ctx, stop := context.WithCancel(r.ctx())
	var helpers, wg conc.WaitGroup
	for _, s := range all {
		helpers.Go(func() { s.DriveAll(ctx) })
	}
	defer helpers.Wait()
	defer stop()
	var written atomic.Int64
	count := func(key string) *pb.TxnRequest { // reads nothing that another client writes
		return &pb.TxnRequest{
			Compare: []*pb.Compare{{Key: []byte("b" + key), Target: pb.Compare_VERSION, Result: pb.Compare_GREATER, TargetUnion: &pb.Compare_Version{Version: 0}}},
			Success: []*pb.RequestOp{putOp("a"+key, "again"), delOp("b"+key, "b"+key+"0"), putOp("c"+key, "")},
			Failure: []*pb.RequestOp{putOp("a"+key, "first"), putOp("b"+key, "")},
		}
	}
	for c := range clients {
		wg.Go(func() {
			key := fmt.Sprint("/", c)
			for i := range rounds {
				resp, err := all[c%2].txn(r.ctx(), count(key))
				if err != nil || resp.Succeeded != (i%2 == 1) {
					t.Errorf("client %d, round %d: %v, %v", c, i, resp, err)
					return
				}
				written.Add(1)
				r.Put(all[i%2], "a"+key+"/put", fmt.Sprint(i))
				written.Add(1)
			}
		})
	}
	wg.Wait()
	if next := r.Put(all[2], "z", ""); next != written.Load()+2 {
		t.Errorf("%d were written, and the next revision is %d", written.Load(), next)
	}
	for _, s := range all {
		r.finished(s)
		if s.Lost() {
			t.Error("the log is refused")
		}
	}
	r.clean()
	for c := range clients {
		got := r.Range(all[2], fmt.Sprint("a/", c), "")
		if !strings.HasPrefix(got, fmt.Sprintf("a/%d=first", c)) {
			t.Error(got)
		}
		resp, err := all[2].rng(r.ctx(), &pb.RangeRequest{Key: fmt.Append(nil, "a/", c)})
		if err != nil || resp.Kvs[0].Version != rounds {
			t.Errorf("%v, %v, want version %d", resp, err, rounds)
		}
	}
}

// The order cluster is away for a while in the middle of a batch.
func TestATransactionOutlastsARestartOfTheOrderCluster(t *testing.T) {
	for _, step := range []string{order.StepOpen, order.StepFence, order.StepDecide, order.StepApply} {
		t.Run(step, func(t *testing.T) {
			t.Parallel()
			var once atomic.Bool
			var sc *scene
			sc = newScene(t, func(o *order.Options) {
				o.Trace = func(_ context.Context, s order.Step) error {
					if s.Name == step && once.CompareAndSwap(false, true) {
						sc.let()
						sc.order.Restart()
					}
					return nil
				}
			})
			resp, err := sc.asked.txn(sc.ctx(), sc.txn)
			if err != nil {
				t.Fatal(err)
			}
			sc.answered(resp)
			sc.done(1) // a drop without an answer is left to the sweep
		})
	}
}
