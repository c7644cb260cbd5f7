package witness

import (
	"context"
	"fmt"
	"math/rand/v2"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	"go.etcd.io/etcd/api/v3/mvccpb"
)

// Bank moves money between accounts whose keys lie on different shards, through any of
// several servers, while auditors add up everything there is, in every way of reading. Money
// never comes out of nothing and never gets lost, at any moment. A test starts it, breaks things
// while it goes on, and ends it with Judge.
type Bank struct {
	t        testing.TB
	servers  []Server
	accounts []string
	follower *Follower

	cancel  context.CancelFunc
	ctx     context.Context
	wg      sync.WaitGroup
	moved   atomic.Int64 // acknowledged transfers
	audits  atomic.Int64 // sums that were right
	newest  atomic.Int64 // the greatest revision of any reply
	mu      sync.Mutex
	wrong   []string
	results []transfer
}

// transfer is one that was asked for, by the number that its two values have.
type transfer struct {
	number   string
	answered bool
	done     bool  // as the answer says
	revision int64 // of the answer
}

const (
	accountsPerShard = 4
	opening          = 100 // in each account
	bankers          = 10  // clients that transfer
	bankPatience     = 3 * time.Second
)

// NewBank opens the accounts, in one transaction, and lets the clients begin.
func NewBank(t testing.TB, seed uint64, servers ...Server) *Bank {
	t.Helper()
	b := &Bank{t: t, servers: servers}
	for _, prefix := range []string{"a", "j", "z", "/h/"} {
		for i := range accountsPerShard {
			b.accounts = append(b.accounts, fmt.Sprint(prefix, "bank", i))
		}
	}
	open := &pb.TxnRequest{}
	for i, a := range b.accounts {
		open.Success = append(open.Success, putOp([]byte(a), value(opening, fmt.Sprint("open", i))))
	}
	Eventually(t, Bound, "the accounts are open", func() bool {
		ctx, cancel := context.WithTimeout(context.Background(), bankPatience)
		defer cancel()
		_, err := pb.NewKVClient(servers[0].Conn).Txn(ctx, open)
		return err == nil
	})
	b.ctx, b.cancel = context.WithCancel(context.Background())
	b.follower = Follow("the books", Watching("\x00", "\x00", 1), servers...)
	for n := range bankers {
		r := rand.New(rand.NewPCG(seed, uint64(n)))
		b.wg.Go(func() { b.banker(n, r) })
	}
	for n := range 4 {
		r := rand.New(rand.NewPCG(seed, uint64(100+n)))
		b.wg.Go(func() { b.auditor(n, r) })
	}
	b.wg.Go(func() { b.passerBy(rand.New(rand.NewPCG(seed, 200))) })
	t.Cleanup(b.stop)
	return b
}

// stop ends everything; once more is harmless.
func (b *Bank) stop() {
	b.cancel()
	b.wg.Wait()
	b.follower.Stop()
}

// Flowing waits until so many transfers and audits more are done.
func (b *Bank) Flowing(when string) {
	b.t.Helper()
	moved, audits := b.moved.Load()+20, b.audits.Load()+10
	Eventually(b.t, Bound, "transfers and audits "+when, func() bool { return b.moved.Load() >= moved && b.audits.Load() >= audits })
}

func value(amount int, number string) []byte { return fmt.Appendf(nil, "%d %s", amount, number) }

func amountOf(v []byte) (int, error) {
	text, _, _ := strings.Cut(string(v), " ")
	return strconv.Atoi(text)
}

func (b *Bank) fail(format string, args ...any) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.wrong = append(b.wrong, fmt.Sprintf(format, args...))
}

// server is any of them, and how long it is waited for.
func (b *Bank) server(r *rand.Rand) (pb.KVClient, context.Context, context.CancelFunc) {
	ctx, cancel := context.WithTimeout(context.Background(), bankPatience)
	return pb.NewKVClient(b.servers[r.IntN(len(b.servers))].Conn), ctx, cancel
}

// pace rests a little, longer after an error; false when it is over.
func (b *Bank) pace(r *rand.Rand, err error) bool {
	d := time.Duration(r.IntN(20)) * time.Millisecond
	if err != nil {
		d += 50 * time.Millisecond
	}
	select {
	case <-time.After(d):
		return true
	case <-b.ctx.Done():
		return false
	}
}

// banker transfers.
func (b *Bank) banker(id int, r *rand.Rand) {
	var err error
	for seq := 0; b.pace(r, err); seq++ {
		err = b.transfer(r, fmt.Sprintf("%d.%d", id, seq))
	}
}

// transfer moves money from one account to another if both are as they were read.
func (b *Bank) transfer(r *rand.Rand, number string) error {
	i := r.IntN(len(b.accounts))
	j := (i + 1 + r.IntN(len(b.accounts)-1)) % len(b.accounts)
	keys := [2][]byte{[]byte(b.accounts[i]), []byte(b.accounts[j])}
	kv, ctx, cancel := b.server(r)
	defer cancel()
	read, err := kv.Txn(ctx, &pb.TxnRequest{Success: []*pb.RequestOp{rangeOp(keys[0], nil), rangeOp(keys[1], nil)}})
	if err != nil {
		return err
	}
	txn := &pb.TxnRequest{}
	amount := 1 + r.IntN(5)
	for k, key := range keys {
		kvs := read.Responses[k].GetResponseRange().GetKvs()
		if len(kvs) != 1 {
			b.fail("account %s has gone", key)
			return nil
		}
		have, err := amountOf(kvs[0].Value)
		if err != nil {
			b.fail("account %s: %v", key, err)
			return nil
		}
		txn.Compare = append(txn.Compare, &pb.Compare{Key: key, Target: pb.Compare_MOD, TargetUnion: &pb.Compare_ModRevision{ModRevision: kvs[0].ModRevision}})
		txn.Success = append(txn.Success, putOp(key, value(have+[2]int{-amount, amount}[k], number)))
	}
	other, ctx, cancel := b.server(r)
	defer cancel()
	resp, err := other.Txn(ctx, txn)
	t := transfer{number: number, answered: err == nil, done: resp.GetSucceeded(), revision: resp.GetHeader().GetRevision()}
	b.mu.Lock()
	b.results = append(b.results, t)
	b.mu.Unlock()
	if t.done {
		b.moved.Add(1)
		b.heard(t.revision)
	}
	return err
}

func (b *Bank) heard(rev int64) {
	for old := b.newest.Load(); rev > old && !b.newest.CompareAndSwap(old, rev); old = b.newest.Load() {
	}
}

// auditor adds up.
func (b *Bank) auditor(id int, r *rand.Rand) {
	var err error
	for b.pace(r, err) {
		kv, ctx, cancel := b.server(r)
		how, all := "", &pb.RangeRequest{Key: []byte{0}, RangeEnd: []byte{0}}
		var kvs []*mvccpb.KeyValue
		switch r.IntN(4) {
		case 0:
			how, all.Serializable = "serializable", true
		case 1:
			how, all.Revision = "historical", max(2, b.newest.Load()-r.Int64N(100))
		case 2:
			how = "in a transaction"
			var resp *pb.TxnResponse
			if resp, err = kv.Txn(ctx, &pb.TxnRequest{Success: []*pb.RequestOp{{Request: &pb.RequestOp_RequestRange{RequestRange: all}}}}); err == nil {
				kvs = resp.Responses[0].GetResponseRange().GetKvs()
			}
		}
		if how != "in a transaction" {
			var resp *pb.RangeResponse
			if resp, err = kv.Range(ctx, all); err == nil {
				kvs = resp.Kvs
			}
		}
		cancel()
		if err == nil && (all.Serializable || all.Revision > 0) && b.sum(kvs) == 0 {
			continue // from before the accounts were open
		}
		if err == nil {
			b.audit(fmt.Sprintf("auditor %d, %s at %d", id, how, all.Revision), kvs)
		}
	}
}

// sum is all the money there is.
func (b *Bank) sum(kvs []*mvccpb.KeyValue) (total int) {
	for _, kv := range kvs {
		if strings.Contains(string(kv.Key), "bank") {
			n, _ := amountOf(kv.Value)
			total += n
		}
	}
	return total
}

func (b *Bank) audit(who string, kvs []*mvccpb.KeyValue) {
	if got, want := b.sum(kvs), opening*len(b.accounts); got != want {
		b.fail("%s: %d instead of %d: %v", who, got, want, kvs)
		return
	}
	b.audits.Add(1)
}

// passerBy puts keys that are nobody's account: ordinary writes on the same shards.
func (b *Bank) passerBy(r *rand.Rand) {
	var err error
	for n := 0; b.pace(r, err); n++ {
		kv, ctx, cancel := b.server(r)
		_, err = kv.Put(ctx, &pb.PutRequest{Key: fmt.Append(nil, []string{"a", "j", "z", "/h/"}[r.IntN(4)], "other"), Value: fmt.Append(nil, n)})
		cancel()
	}
}

// Judge ends the bank and checks the books: at every revision the money is all there, a
// transfer has both its halves in one response, and what clients were told is what happened.
func (b *Bank) Judge() {
	b.t.Helper()
	b.cancel()
	b.wg.Wait()
	last := b.newest.Load()
	Eventually(b.t, Bound, fmt.Sprintf("the books reach revision %d", last), func() bool { return b.follower.reached() >= last })
	b.follower.Stop()
	halves := b.books()
	for _, r := range b.results {
		switch n := len(halves[r.number]); {
		case r.answered && r.done && (n != 2 || halves[r.number][0] != r.revision):
			b.fail("transfer %s was done at %d, the books have %v", r.number, r.revision, halves[r.number])
		case r.answered && !r.done && n > 0:
			b.fail("transfer %s was not done, the books have %v", r.number, halves[r.number])
		}
	}
	for _, w := range b.wrong[:min(10, len(b.wrong))] {
		b.t.Error(w)
	}
	b.t.Logf("%d transfers, %d audits", b.moved.Load(), b.audits.Load())
}

// books replays what the watch saw, and gives the revisions of the halves of each transfer.
func (b *Bank) books() map[string][]int64 {
	halves, money := map[string][]int64{}, map[string]*mvccpb.KeyValue{}
	for _, r := range b.follower.responses() {
		for i, ev := range r.Events {
			if !strings.Contains(string(ev.Kv.Key), "bank") {
				continue
			}
			money[string(ev.Kv.Key)] = ev.Kv
			_, number, _ := strings.Cut(string(ev.Kv.Value), " ")
			halves[number] = append(halves[number], ev.Kv.ModRevision)
			if i+1 < len(r.Events) && r.Events[i+1].Kv.ModRevision == ev.Kv.ModRevision || len(money) < len(b.accounts) {
				continue // the revision goes on, or the bank is not open
			}
			var all []*mvccpb.KeyValue
			for _, kv := range money {
				all = append(all, kv)
			}
			b.audit(fmt.Sprintf("the books at %d", ev.Kv.ModRevision), all)
		}
	}
	for number, revs := range halves {
		if !strings.HasPrefix(number, "open") && (len(revs) != 2 || revs[0] != revs[1]) {
			b.fail("transfer %s has its halves at %v", number, revs)
		}
	}
	return halves
}

// responses are all with events, in the order in which they came.
func (f *Follower) responses() (all []*pb.WatchResponse) {
	f.mu.Lock()
	defer f.mu.Unlock()
	for _, s := range f.watch.Segments {
		for _, r := range s.Responses {
			if len(r.Events) > 0 {
				all = append(all, r)
			}
		}
	}
	return all
}

// reached is the revision that the newest response has.
func (f *Follower) reached() (rev int64) {
	f.mu.Lock()
	defer f.mu.Unlock()
	for _, s := range f.watch.Segments {
		for _, r := range s.Responses {
			if !r.Created && !r.Canceled {
				rev = max(rev, r.Header.GetRevision())
			}
		}
	}
	return rev
}
