package cache_test

import (
	"bytes"
	"context"
	"fmt"
	"math/rand/v2"
	"sync/atomic"
	"testing"
	"time"

	"github.com/sourcegraph/conc/pool"
	"google.golang.org/protobuf/proto"

	"github.com/sharder/sharder/integration/etcdtest"
	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	"go.etcd.io/etcd/api/v3/mvccpb"
)

// told is what a client knows of a key: it was written, or deleted, at a revision.
type told struct {
	rev     int64
	deleted bool
}

// believe checks what a client reads of a key against what he knows.
func (k told) believe(name string, kv *mvccpb.KeyValue, resp *pb.RangeResponse) error {
	switch {
	case resp.Header.Revision < k.rev:
		return fmt.Errorf("%s at revision %d, behind the client's own write at %d", name, resp.Header.Revision, k.rev)
	case kv != nil && kv.ModRevision < k.rev:
		return fmt.Errorf("%s as of %d, behind the client's own write at %d", name, kv.ModRevision, k.rev)
	case kv == nil && !k.deleted && resp.Header.Revision == k.rev:
		return fmt.Errorf("%s is gone at %d, where it was written", name, k.rev)
	}
	return nil
}

// client writes and reads a few keys that others write, too, through the sharder.
type client struct {
	r     *rig
	rand  *rand.Rand
	knows map[string]told
}

const contested = 6

func (c *client) key() string { return fmt.Sprint("k", c.rand.IntN(contested)) }

func (c *client) write(ctx context.Context) error {
	k := c.key()
	switch c.rand.IntN(4) {
	case 0:
		resp, err := c.r.kv.DeleteRange(ctx, &pb.DeleteRangeRequest{Key: []byte(k)})
		if err != nil || resp.Deleted == 0 {
			return err
		}
		c.knows[k] = told{resp.Header.Revision, true}
	case 1:
		resp, err := c.r.kv.Txn(ctx, &pb.TxnRequest{Success: []*pb.RequestOp{txnOp(&pb.TxnRequest{Success: []*pb.RequestOp{putOp(k, "nested")}})}})
		if err != nil {
			return err
		}
		c.knows[k] = told{rev: resp.Header.Revision}
	default:
		resp, err := c.r.kv.Put(ctx, &pb.PutRequest{Key: []byte(k), Value: []byte("put")})
		if err != nil {
			return err
		}
		c.knows[k] = told{rev: resp.Header.Revision}
	}
	return nil
}

func (c *client) read(ctx context.Context) error {
	k := c.key()
	q := &pb.RangeRequest{Key: []byte(k), Serializable: true}
	switch c.rand.IntN(3) {
	case 0:
		q.Key, q.RangeEnd = []byte("k"), []byte("l")
	case 1:
		q.Key, q.RangeEnd = []byte("k"), []byte{0}
	}
	resp, err := c.r.kv.Range(ctx, q)
	if err != nil {
		return err
	}
	read := map[string]*mvccpb.KeyValue{}
	for _, kv := range resp.Kvs {
		read[string(kv.Key)] = kv
	}
	for name, known := range c.knows {
		if len(q.RangeEnd) == 0 && name != k {
			continue
		}
		if err := known.believe(name, read[name], resp); err != nil {
			return err
		}
	}
	return nil
}

// Clients write and read the same keys through one sharder, while others write them
// elsewhere. Nobody ever finds less than he has written himself, and in the end all agree.
func TestReadersFindTheirOwnWritesUnderLoad(t *testing.T) {
	t.Parallel()
	r := newRig(t, etcdtest.Start(t), func(o *options) { o.MaxAge, o.AuthInterval = 200*time.Millisecond, 500*time.Millisecond })
	var stop atomic.Bool
	p := pool.New().WithErrors().WithContext(t.Context()).WithCancelOnError()
	for i := range 8 {
		c := &client{r: r, rand: rand.New(rand.NewPCG(uint64(i), 1)), knows: map[string]told{}}
		p.Go(func(ctx context.Context) error {
			for !stop.Load() {
				if err := c.write(ctx); err != nil {
					return err
				}
				for range c.rand.IntN(20) {
					if err := c.read(ctx); err != nil {
						return err
					}
				}
			}
			return nil
		})
	}
	p.Go(func(ctx context.Context) error {
		for i := 0; !stop.Load(); i++ {
			if _, err := r.etcd.Put(ctx, &pb.PutRequest{Key: fmt.Appendf(nil, "k%d", i%contested), Value: []byte("elsewhere")}); err != nil {
				return err
			}
			time.Sleep(5 * time.Millisecond)
		}
		return nil
	})
	used := func() bool { s := r.cache.Stats(); return s.Hits >= 100 && s.Invalidations >= 100 }
	for began := time.Now(); time.Since(began) < 4*time.Second || !used() && time.Since(began) < time.Minute; {
		time.Sleep(100 * time.Millisecond)
	}
	stop.Store(true)
	if err := p.Wait(); err != nil {
		t.Fatal(err)
	}
	if !used() {
		t.Errorf("%+v: it was hardly used", r.cache.Stats())
	}
	for _, q := range []*pb.RangeRequest{prefix("k"), span("k", "\x00"), key("k0"), key("k1"), key("k2")} {
		eventually(t, soon, "the same as etcd", func() bool { return agrees(t, r, q) })
	}
	if n := r.cache.Recount(); n != r.cache.Stats().Bytes {
		t.Errorf("%d bytes are counted, %d are there", r.cache.Stats().Bytes, n)
	}
}

// agrees compares an answer through the cache with etcd's own.
func agrees(t *testing.T, r *rig, q *pb.RangeRequest) bool {
	t.Helper()
	direct := proto.Clone(q).(*pb.RangeRequest)
	direct.Serializable = false
	want, err := r.etcd.Range(t.Context(), direct)
	if err != nil {
		t.Fatal(err)
	}
	return same(r.read(t.Context(), q), want)
}

// same compares two answers, all but their revisions.
func same(got, want *pb.RangeResponse) bool {
	g, w := proto.Clone(got).(*pb.RangeResponse), proto.Clone(want).(*pb.RangeResponse)
	g.Header.Revision = w.Header.Revision
	opts := proto.MarshalOptions{Deterministic: true}
	a, err1 := opts.Marshal(g)
	b, err2 := opts.Marshal(w)
	return err1 == nil && err2 == nil && bytes.Equal(a, b)
}
