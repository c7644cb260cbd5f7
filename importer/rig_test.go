package importer_test

import (
	"bytes"
	"context"
	"fmt"
	"math/rand/v2"
	"sync/atomic"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/sharder/sharder/importer"
	"github.com/sharder/sharder/integration/etcdtest"
	"github.com/sharder/sharder/integration/leaks"
	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	"go.etcd.io/etcd/api/v3/mvccpb"
	clientv3 "go.etcd.io/etcd/client/v3"
)

func TestMain(m *testing.M) { leaks.Main(m) }

// rig is a source and a target, both real. The target keeps the record, too: it is among
// the keys that an import does not touch.
type rig struct {
	t              testing.TB
	source, target *clientv3.Client
	from, to       *etcdtest.Etcd
	options        importer.Options
}

func newRig(t testing.TB) *rig {
	t.Helper()
	r := &rig{t: t, from: etcdtest.Start(t), to: etcdtest.Start(t)}
	r.source, r.target = r.from.Client(), r.to.Client()
	conn := etcdtest.Conn(t, r.to.Endpoint)
	r.options = importer.Options{
		Source: side(etcdtest.Conn(t, r.from.Endpoint)), Target: side(conn), Records: pb.NewKVClient(conn),
		Patience: 30 * time.Second,
	}
	return r
}

func side(conn grpc.ClientConnInterface) importer.Etcd {
	return importer.Etcd{KV: pb.NewKVClient(conn), Lease: pb.NewLeaseClient(conn)}
}

// fill puts n keys into the source, some binary, some large, some empty, some written
// more than once, in a few large transactions.
func (r *rig) fill(n int) {
	r.t.Helper()
	var ops []clientv3.Op
	for i := range n {
		if ops = append(ops, clientv3.OpPut(key(i), value(i))); len(ops) == 100 || i == n-1 {
			if _, err := r.source.Txn(r.t.Context()).Then(ops...).Commit(); err != nil {
				r.t.Fatal(err)
			}
			ops = nil
		}
	}
	for i := 0; i < n; i += max(1, n/20) {
		r.put(r.source, key(i), value(i)+"again")
	}
}

// key gives keys with all bytes in all places but the first.
func key(i int) string {
	if i%3 == 0 {
		return fmt.Sprintf("\x01%c\x00\xff%c%d", byte(i), byte(i>>8), i)
	}
	return fmt.Sprintf("/registry/things/%06d", i)
}

// value gives values from nothing to 40 kB, of all bytes.
func value(i int) string {
	switch {
	case i%7 == 0:
		return ""
	case i%500 == 1:
		return string(bytes.Repeat([]byte{byte(i), 0, 0xff, '\n'}, 10_000))
	}
	return fmt.Sprintf("value \x00%d\xfe", i)
}

func (r *rig) put(c *clientv3.Client, key, value string, o ...clientv3.OpOption) int64 {
	r.t.Helper()
	resp, err := c.Put(r.t.Context(), key, value, o...)
	if err != nil {
		r.t.Fatal(err)
	}
	return resp.Header.Revision
}

func (r *rig) del(c *clientv3.Client, key string) {
	r.t.Helper()
	if _, err := c.Delete(r.t.Context(), key); err != nil {
		r.t.Fatal(err)
	}
}

// lease grants a lease in the source with a few keys.
func (r *rig) lease(id clientv3.LeaseID, ttl int64, keys ...string) {
	r.t.Helper()
	if _, err := pb.NewLeaseClient(etcdtest.Conn(r.t, r.from.Endpoint)).LeaseGrant(r.t.Context(), &pb.LeaseGrantRequest{ID: int64(id), TTL: ttl}); err != nil {
		r.t.Fatal(err)
	}
	for _, k := range keys {
		r.put(r.source, k, "leased "+k, clientv3.WithLease(id))
	}
}

// compact compacts the source at its newest revision.
func (r *rig) compact() {
	r.t.Helper()
	if _, err := r.source.Compact(r.t.Context(), r.revision(r.source)); err != nil {
		r.t.Fatal(err)
	}
}

func (r *rig) revision(c *clientv3.Client) int64 {
	r.t.Helper()
	resp, err := c.Get(r.t.Context(), "x", clientv3.WithCountOnly())
	if err != nil {
		r.t.Fatal(err)
	}
	return resp.Header.Revision
}

func (r *rig) all(c *clientv3.Client) []*mvccpb.KeyValue {
	r.t.Helper()
	resp, err := c.Get(r.t.Context(), "\x01", clientv3.WithFromKey())
	if err != nil {
		r.t.Fatal(err)
	}
	return resp.Kvs
}

// same fails the test unless the target holds exactly what the source does.
func (r *rig) same() {
	r.t.Helper()
	want, got := r.all(r.source), r.all(r.target)
	for i := range min(len(want), len(got)) {
		w, g := want[i], got[i]
		if !bytes.Equal(w.Key, g.Key) || !bytes.Equal(w.Value, g.Value) || w.Lease != g.Lease {
			r.t.Fatalf("key %d: source %q (%d bytes, lease %x), target %q (%d bytes, lease %x)", i, w.Key, len(w.Value), w.Lease, g.Key, len(g.Value), g.Lease)
		}
	}
	if len(want) != len(got) {
		r.t.Fatalf("%d keys in the source, %d in the target", len(want), len(got))
	}
}

// run runs an import, with changed options.
func (r *rig) run(change ...func(*importer.Options)) (*importer.Report, error) {
	return r.runCtx(r.t.Context(), change...)
}

func (r *rig) runCtx(ctx context.Context, change ...func(*importer.Options)) (*importer.Report, error) {
	o := r.options
	for _, c := range change {
		c(&o)
	}
	return importer.Run(ctx, o)
}

// done runs an import that has to succeed.
func (r *rig) done(change ...func(*importer.Options)) *importer.Report {
	r.t.Helper()
	report, err := r.run(change...)
	if err != nil || !report.Verified || report.Differences != 0 {
		r.t.Fatalf("%+v: %v", report, err)
	}
	return report
}

func overwrite(o *importer.Options)  { o.Overwrite = true }
func restart(o *importer.Options)    { o.Restart = true }
func dryRun(o *importer.Options)     { o.Mode = importer.DryRun }
func verifyOnly(o *importer.Options) { o.Mode = importer.VerifyOnly }

// tapped is a KV client whose requests somebody sees before they are sent, and
// transactions after.
type tapped struct {
	pb.KVClient
	read   func(*pb.RangeRequest)
	before func(*pb.TxnRequest) error // its error is the transaction's
	after  func(*pb.TxnRequest) error
}

func (c tapped) Range(ctx context.Context, in *pb.RangeRequest, opts ...grpc.CallOption) (*pb.RangeResponse, error) {
	if c.read != nil {
		c.read(in)
	}
	return c.KVClient.Range(ctx, in, opts...)
}

func (c tapped) Txn(ctx context.Context, in *pb.TxnRequest, opts ...grpc.CallOption) (*pb.TxnResponse, error) {
	if c.before != nil {
		if err := c.before(in); err != nil {
			return nil, err
		}
	}
	out, err := c.KVClient.Txn(ctx, in, opts...)
	if err == nil && c.after != nil {
		err = c.after(in)
	}
	return out, err
}

// errKilled is what a process that is no more hears from nobody.
var errKilled = status.Error(codes.Canceled, "killed")

// killedAfter makes an import end as a killed process does: after some transactions on the
// target, half of those under way arrive and their answers don't, and nothing is
// written any more, the record neither.
func killedAfter(n int64) func(*importer.Options) {
	var sent atomic.Int64
	kill := tapped{
		before: func(*pb.TxnRequest) error {
			if sent.Add(1) > n && rand.N(2) == 0 {
				return errKilled
			}
			return nil
		},
		after: func(*pb.TxnRequest) error {
			if sent.Load() > n {
				return errKilled
			}
			return nil
		},
	}
	return func(o *importer.Options) {
		target, records := kill, tapped{KVClient: o.Records, before: func(*pb.TxnRequest) error {
			if sent.Load() > n {
				return errKilled
			}
			return nil
		}}
		target.KVClient = o.Target.KV
		o.Target.KV, o.Records = target, records
	}
}
