package order_test

import (
	"bytes"
	"log/slog"
	"strings"
	"testing"

	"github.com/sharder/sharder/stages/order"
	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"
)

// U6: a shard that compacts on its own can't be asked whether it does; it is noticed by
// what it has thrown away, and a read of that is told so, not answered wrongly.
func TestShardThatCompactsOnItsOwnIsReported(t *testing.T) {
	t.Parallel()
	r := newRig(t, 2)
	var out bytes.Buffer
	s := r.sharder(func(o *order.Options) { o.Logger = slog.New(slog.NewTextHandler(&out, nil)) })
	for range 3 {
		r.Put(s, "a", "1")
		r.Put(s, "b", "1")
	}
	if _, err := s.Compact(r.ctx(), &pb.CompactionRequest{Revision: 4, Physical: true}); err != nil {
		t.Fatal(err)
	}
	s.LookForCompactions(r.ctx())
	s.end() // it logs no more
	if strings.Contains(out.String(), "compacts on its own") {
		t.Fatalf("a compaction of sharder's own is reported:\n%s", out.String())
	}
	out.Reset()
	s = r.sharder(func(o *order.Options) { o.Logger = slog.New(slog.NewTextHandler(&out, nil)) })
	e := r.etcds[1].Client()
	now, err := e.Get(t.Context(), "b")
	if err != nil {
		t.Fatal(err)
	}
	if _, err := e.Compact(t.Context(), now.Header.Revision); err != nil {
		t.Fatal(err)
	}
	s.LookForCompactions(r.ctx())
	if got := r.Range(s, "a", "c", func(q *pb.RangeRequest) { q.Revision = 5 }); !strings.Contains(got, text(rpctypes.ErrGRPCCompacted)) {
		t.Fatalf("a read of what a shard has thrown away: %s", got)
	}
	if got := r.Range(s, "a", "c"); !strings.HasSuffix(got, "at 7") {
		t.Fatalf("a read of now: %s", got)
	}
	s.end()
	if !strings.Contains(out.String(), "compacts on its own") || !strings.Contains(out.String(), "shard=b") {
		t.Fatalf("nothing is reported of shard b:\n%s", out.String())
	}
}
