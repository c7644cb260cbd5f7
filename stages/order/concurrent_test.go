package order_test

import (
	"cmp"
	"flag"
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/sourcegraph/conc"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/encoding/prototext"
	"google.golang.org/protobuf/proto"

	"github.com/sharder/sharder/integration/etcdtest"
	"github.com/sharder/sharder/stages"
	"github.com/sharder/sharder/stages/order"
	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
)

var concurrentSeed = flag.Uint64("concurrent.seed", 0, "repeat TestWhatManyDoAtOnceIsWhatOneEtcdDoesInTheirOrder with this seed")

// done is a request that was answered, as a Txn.
type done struct {
	txn  *pb.TxnRequest
	resp *pb.TxnResponse
}

func (d done) revision() int64 { return d.resp.Header.Revision }

// wrote tells whether the revision is its own.
func (d done) wrote() bool { return hasWritten(d.resp) }

func hasWritten(r *pb.TxnResponse) bool {
	return slices.ContainsFunc(r.Responses, func(op *pb.ResponseOp) bool {
		return op.GetResponsePut() != nil || op.GetResponseDeleteRange().GetDeleted() > 0 || op.GetResponseTxn() != nil && hasWritten(op.GetResponseTxn())
	})
}

// Many clients of two sharders send Txns of all kinds at once. Then one etcd gets the same
// Txns, one after the other, in the order of their revisions: its answers must be those
// that were given, in every part.
func TestWhatManyDoAtOnceIsWhatOneEtcdDoesInTheirOrder(t *testing.T) {
	t.Parallel()
	seed := *concurrentSeed
	if seed == 0 {
		seed = rand.Uint64()
	}
	t.Logf("-concurrent.seed=%d makes the same requests again", seed)
	r := newRig(t, 3)
	all := []*sharder{r.sharder(nil), r.sharder(nil)}
	var mu sync.Mutex
	var history []done
	refused := map[string]int{}
	var wg conc.WaitGroup
	for c := range 8 {
		wg.Go(func() {
			rnd := rand.New(rand.NewPCG(seed, uint64(c)))
			last := int64(1)
			for range 60 {
				txn := order.RandomTxn(rnd, last)
				resp, err := all[c%2].txn(r.ctx(), txn)
				mu.Lock()
				if err == nil {
					last = resp.Header.Revision
					history = append(history, done{txn, resp})
				} else {
					refused[status.Convert(stages.ErrorStatus(err)).Message()]++
				}
				mu.Unlock()
			}
		})
	}
	wg.Wait()
	for text := range refused {
		if !strings.HasPrefix(text, "etcdserver: ") {
			t.Errorf("refused: %s", text)
		}
	}
	t.Logf("%d answered, refused: %v", len(history), refused)
	r.replay(history)
}

// replay has one etcd do what was done, in its order.
func (r *rig) replay(history []done) {
	r.t.Helper()
	slices.SortStableFunc(history, func(a, b done) int {
		if c := cmp.Compare(a.revision(), b.revision()); c != 0 || a.wrote() == b.wrote() {
			return c
		} else if a.wrote() {
			return -1 // who only reads at a revision sees it
		}
		return 1
	})
	kv := pb.NewKVClient(etcdtest.Conn(r.t, etcdtest.Start(r.t).Endpoint))
	revision := int64(1)
	for i, d := range history {
		if d.wrote() {
			if revision++; d.revision() != revision {
				r.t.Fatalf("%d: revision %d after %d", i, d.revision(), revision-1)
			}
		}
		want, err := kv.Txn(r.ctx(), d.txn)
		if err != nil {
			r.t.Fatalf("%d: etcd refuses %v", i, err)
		}
		got := proto.Clone(d.resp).(*pb.TxnResponse)
		want.Header, got.Header = &pb.ResponseHeader{Revision: want.Header.Revision}, &pb.ResponseHeader{Revision: got.Header.Revision}
		if !proto.Equal(got, want) {
			r.t.Fatalf("%d, at revision %d:\n%s\n%s", i, revision, prototext.Format(d.txn), fmt.Sprintf("got\n%v\nwant\n%v", got, want))
		}
	}
}
