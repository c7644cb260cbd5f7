package order_test

import (
	"context"
	"fmt"
	"math/rand/v2"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/sourcegraph/conc"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
)

// A flow of transactions over a few shards keeps neither ordinary writes out for ever nor
// a transaction over all of them.
func TestNobodyStarvesBesideAFlowOfTransactions(t *testing.T) {
	t.Parallel()
	r := newRig(t, 3)
	all := []*sharder{r.sharder(nil), r.sharder(nil)}
	ctx, stop := context.WithCancel(r.ctx())
	var wg conc.WaitGroup
	defer wg.Wait()
	defer stop()
	for i, keys := range [][]string{{"a", "b"}, {"b", "c"}, {"a", "c"}, {"a", "b"}, {"b", "c"}, {"c", "a"}} {
		wg.Go(func() {
			for ctx.Err() == nil {
				if _, err := all[i%2].txn(ctx, puts(fmt.Sprint(i), keys...)); err != nil && ctx.Err() == nil {
					t.Error(err)
					return
				}
			}
		})
	}
	for i := range 20 {
		r.Put(all[i%2], string(rune('a'+i%3)), "put")
		r.doTxn(all[i%2], puts("wide", "a", "b", "c"))
	}
}

// transfer moves an amount between two accounts, if they hold what was read.
func transfer(from, to string, have, has, amount int) *pb.TxnRequest {
	value := func(key string, v int) *pb.Compare {
		return &pb.Compare{Key: []byte(key), Target: pb.Compare_VALUE, TargetUnion: &pb.Compare_Value{Value: []byte(fmt.Sprint(v))}}
	}
	return &pb.TxnRequest{
		Compare: []*pb.Compare{value(from, have), value(to, has)},
		Success: []*pb.RequestOp{putOp(from, fmt.Sprint(have-amount)), putOp(to, fmt.Sprint(has+amount))},
		Failure: []*pb.RequestOp{rangeOp(from, ""), rangeOp(to, "")},
	}
}

func TestTransfersKeepTheTotal(t *testing.T) {
	t.Parallel()
	const accounts, clients, rounds, total = 6, 8, 25, 600
	r := newRig(t, 3)
	all := []*sharder{r.sharder(nil), r.sharder(nil)}
	name := func(i int) string { return fmt.Sprintf("%c%d", 'a'+i%3, i) }
	first := &pb.TxnRequest{}
	for i := range accounts {
		first.Success = append(first.Success, putOp(name(i), fmt.Sprint(total/accounts)))
	}
	r.doTxn(all[0], first)
	var revisions sync.Map
	var moved atomic.Int64
	var wg conc.WaitGroup
	for c := range clients {
		wg.Go(func() {
			dice := rand.New(rand.NewPCG(uint64(c), 1))
			s := all[c%2]
			for range rounds {
				state := r.sum(s, total)
				from := dice.IntN(accounts)
				to := (from + 1 + dice.IntN(accounts-1)) % accounts
				resp, err := s.txn(r.ctx(), transfer(name(from), name(to), state[name(from)], state[name(to)], 1+dice.IntN(5)))
				if err != nil {
					t.Error(err)
					return
				}
				if resp.Succeeded {
					moved.Add(1)
					if _, twice := revisions.LoadOrStore(resp.Header.Revision, true); twice {
						t.Errorf("two transfers at revision %d", resp.Header.Revision)
					}
				}
			}
		})
	}
	wg.Wait()
	r.sum(all[0], total)
	if next := r.Put(all[1], "z", ""); next != 2+moved.Load()+1 {
		t.Fatalf("%d transfers, and the next revision is %d", moved.Load(), next)
	}
}

// sum reads all accounts, which must hold the total together.
func (r *rig) sum(s *sharder, total int) map[string]int {
	resp, err := s.rng(r.ctx(), &pb.RangeRequest{Key: []byte("a"), RangeEnd: []byte("d")})
	if err != nil {
		r.t.Error(err)
		return nil
	}
	state, have := map[string]int{}, 0
	for _, kv := range resp.Kvs {
		var v int
		_, _ = fmt.Sscan(string(kv.Value), &v)
		state[string(kv.Key)], have = v, have+v
	}
	if have != total {
		r.t.Errorf("revision %d: %d in all accounts, not %d: %v", resp.Header.Revision, have, total, state)
	}
	return state
}
