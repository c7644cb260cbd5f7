package chaos

import (
	"context"
	"sync/atomic"
	"testing"
	"time"

	"github.com/sourcegraph/conc"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"

	"github.com/sharder/sharder/integration/witness"
)

// across puts two keys of different shards at once.
func across(s witness.Server) error {
	ctx, cancel := context.WithTimeout(context.Background(), 30*time.Second)
	defer cancel()
	put := func(key string) *pb.RequestOp {
		return &pb.RequestOp{Request: &pb.RequestOp_RequestPut{RequestPut: &pb.PutRequest{Key: []byte(key), Value: []byte("x")}}}
	}
	_, err := pb.NewKVClient(s.Conn).Txn(ctx, &pb.TxnRequest{Success: []*pb.RequestOp{put("a"), put("j")}})
	return err
}

// endured is how long an election may take that must cost nothing: sharder asks for three seconds.
const endured = 2500 * time.Millisecond

// An etcd that has just lost its leader loses what its members pass on to that one, and says
// nothing for as long as an election takes. A transaction that needs it waits; only one that comes
// while it is known that there is no leader is refused, before it has begun.
func TestAnElectionOfAShardCostsNoTransaction(t *testing.T) {
	t.Parallel()
	f := startOrdered(t, 3, 1, 1, 1)
	judged := 0
	for round := 0; round < 10 && judged < 2; round++ {
		witness.Eventually(t, bound, "a transaction", func() bool { return across(f.servers[0]) == nil })
		took, errs := f.withoutLeader(0)
		t.Logf("round %d: %v without a leader, %d transactions failed", round, took, len(errs))
		if took > endured {
			continue
		}
		judged++
		for _, err := range errs {
			t.Errorf("an election of %v: %v", took, err)
		}
	}
	if judged == 0 {
		t.Skip("no election was as short as elections are")
	}
}

// withoutLeader kills the leader of a shard and tells how long it had none, and with which errors
// transactions ended that began meanwhile. The member is back then.
func (f *ordered) withoutLeader(shard int) (took time.Duration, errs []error) {
	f.t.Helper()
	c := f.clusters[shard]
	leader := c.Leader()
	c.Kill(leader)
	began := time.Now()
	failed := make([]error, len(f.servers))
	var over atomic.Bool
	var wg conc.WaitGroup
	for i, s := range f.servers {
		wg.Go(func() {
			for first := true; first || !over.Load(); {
				err := across(s)
				if refusedBy(err, "it has no leader") {
					continue
				}
				if first = false; err != nil {
					failed[i] = err
					return
				}
			}
		})
	}
	c.Leader()
	took = time.Since(began)
	over.Store(true)
	wg.Wait()
	c.Start(leader)
	for _, err := range failed {
		if err != nil {
			errs = append(errs, err)
		}
	}
	return took, errs
}
