package order_test

import (
	"context"
	"fmt"
	"sync/atomic"
	"testing"

	"github.com/sourcegraph/conc/pool"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
)

// What a Txn costs that puts a key on each of two shards, beside a put: one client, and
// many that share batches. The three shards and the order are etcds in this process; the
// workloads cross-1 and cross-N of integration/sidebyside are the same between processes.
func BenchmarkCross(b *testing.B) {
	r := newRig(b, 3)
	s := r.sharder(nil)
	key := func(client, offset int) string { return fmt.Sprintf("%c%d", 'a'+(client+offset)%3, client) }
	txn := func(keys ...string) error {
		_, err := s.txn(context.Background(), puts("v", keys...))
		return err
	}
	for _, w := range []struct {
		name string
		do   func(client int) error
	}{
		{"put", func(client int) error {
			_, err := s.put(context.Background(), &pb.PutRequest{Key: []byte(key(client, 0)), Value: []byte("v")})
			return err
		}},
		{"txn", func(client int) error { return txn(key(client, 0), key(client, 1)) }},
		{"hot", func(int) error { return txn("a", "b") }},
	} {
		for _, clients := range []int{1, 64} {
			b.Run(fmt.Sprintf("%s/clients=%d", w.name, clients), func(b *testing.B) { byMany(b, clients, w.do) })
		}
	}
}

// byMany has clients do b.N requests together.
func byMany(b *testing.B, clients int, do func(client int) error) {
	var left atomic.Int64
	left.Store(int64(b.N))
	p := pool.New().WithErrors()
	for client := range clients {
		p.Go(func() error {
			for left.Add(-1) >= 0 {
				if err := do(client); err != nil {
					return err
				}
			}
			return nil
		})
	}
	if err := p.Wait(); err != nil {
		b.Fatal(err)
	}
	b.ReportMetric(float64(b.N)/b.Elapsed().Seconds(), "per-second")
}
