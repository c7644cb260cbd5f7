package lease

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"slices"
	"sync"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/backoff"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials/insecure"

	"github.com/sharder/sharder/integration/etcdtest"
	"github.com/sharder/sharder/pipeline"
	"github.com/sharder/sharder/stages"
	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
)

// world is three shards, each an etcd. The home of leases is shard a, or apart from them
// on a fourth etcd, which then holds the ledger, too.
type world struct {
	t     *testing.T
	names []string // of the shards
	home  string
	etcds map[string]*etcdtest.Etcd
	conns map[string]*grpc.ClientConn
}

const apart = "order"

// newWorld starts a world whose home is a shard. Tests wait for leases most of the
// time, so those with a world run side by side.
func newWorld(t *testing.T, opts ...etcdtest.Option) *world {
	t.Helper()
	t.Parallel()
	return startWorld(t, "a", opts...)
}

// newWorldApart starts one whose home is apart.
func newWorldApart(t *testing.T, opts ...etcdtest.Option) *world {
	t.Helper()
	t.Parallel()
	return startWorld(t, apart, opts...)
}

// inBoth runs a test in both kinds of world.
func inBoth(t *testing.T, f func(t *testing.T, w *world), opts ...etcdtest.Option) {
	t.Parallel()
	t.Run("home among the shards", func(t *testing.T) { f(t, newWorld(t, opts...)) })
	t.Run("home apart", func(t *testing.T) { f(t, newWorldApart(t, opts...)) })
}

func startWorld(t *testing.T, home string, opts ...etcdtest.Option) *world {
	t.Helper()
	w := &world{t: t, names: []string{"a", "b", "c"}, home: home, etcds: map[string]*etcdtest.Etcd{}, conns: map[string]*grpc.ClientConn{}}
	for _, n := range w.all() {
		w.etcds[n] = etcdtest.Start(t, opts...)
		w.conns[n] = soon(t, w.etcds[n].Endpoint)
	}
	return w
}

// soon is a connection that comes back soon after the other end does.
func soon(t *testing.T, addr string) *grpc.ClientConn {
	t.Helper()
	c, err := grpc.NewClient("passthrough:///"+addr,
		grpc.WithTransportCredentials(insecure.NewCredentials()),
		grpc.WithConnectParams(grpc.ConnectParams{Backoff: backoff.Config{BaseDelay: 20 * time.Millisecond, Multiplier: 1.5, MaxDelay: 200 * time.Millisecond}, MinConnectTimeout: 5 * time.Second}))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	return c
}

// isApart tells whether home is apart.
func (w *world) isApart() bool { return w.home == apart }

// all are the names of all clusters.
func (w *world) all() []string {
	if w.isApart() {
		return append(slices.Clone(w.names), apart)
	}
	return w.names
}

// homeText is what errors call home.
func (w *world) homeText() string {
	if w.isApart() {
		return "order cluster"
	}
	return "shard " + w.home
}

// sharder is a Manager and what stands between it and the shards.
type sharder struct {
	*Manager
	t      *testing.T
	w      *world
	shards map[string]*stages.Shard
	taps   map[string]*tap
	ledger *ledger // nil unless home is apart
}

// sharder makes a Manager that is not running.
func (w *world) sharder(change ...func(*Options)) *sharder {
	s := &sharder{t: w.t, w: w, shards: map[string]*stages.Shard{}, taps: map[string]*tap{}}
	var o Options
	for i, n := range w.all() {
		s.taps[n] = &tap{ClientConnInterface: w.conns[n], name: n}
		s.shards[n] = &stages.Shard{Number: i, Name: n, Conn: s.taps[n], Lane: pipeline.NewLink(100, 100)}
	}
	for _, n := range w.names {
		o.Shards = append(o.Shards, s.shards[n])
	}
	o.Home = s.shards[w.home]
	if w.isApart() {
		// A shard may have the same name.
		o.Home.Number, o.Home.Name = stages.OrderCluster, "b"
		s.ledger = &ledger{kv: pb.NewKVClient(s.taps[apart])}
		o.Deleted, o.Header = s.ledger.deleted, s.ledger.header
	}
	o.Logger = slog.New(slog.DiscardHandler)
	if os.Getenv("LEASE_LOG") != "" {
		o.Logger = slog.Default()
	}
	o.Timeout, o.Patience = 30*time.Second, 30*time.Second // for a machine that is busy with other things
	for _, f := range change {
		f(&o)
	}
	s.Manager = New(o)
	return s
}

// recovered makes a Manager that recovered, as a starting sharder does.
func (w *world) recovered(change ...func(*Options)) *sharder {
	w.t.Helper()
	s := w.sharder(change...)
	if err := s.Recover(w.t.Context()); err != nil {
		w.t.Fatalf("recover: %v", err)
	}
	return s
}

// running makes a Manager that recovered and runs, until the test ends or kill.
func (w *world) running(change ...func(*Options)) (s *sharder, kill func()) {
	w.t.Helper()
	s = w.recovered(change...)
	return s, s.runs()
}

// runs lets a Manager run until the test ends or kill.
func (s *sharder) runs() (kill func()) {
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- s.Run(ctx) }()
	kill = sync.OnceFunc(func() {
		cancel()
		if err := <-done; !errors.Is(err, context.Canceled) {
			s.t.Errorf("run: %v", err)
		}
	})
	s.t.Cleanup(kill)
	return kill
}

// do sends one operation to a shard through the middleware.
func (s *sharder) do(shard string, op *pb.RequestOp) (*pb.ResponseOp, error) {
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	call := stages.Call{Op: &stages.Op{Request: op}, Shard: s.shards[shard], Request: op}
	stage := pipeline.Stage[stages.Call, stages.Reply](stages.CallShard)
	if s.ledger != nil {
		stage = guard(stage)
	}
	stage = s.Attach()(stage)
	if s.ledger != nil {
		stage = s.ledger.commit(stage)
	}
	r, err := stage(ctx, call)
	return r.Response, stages.ErrorStatus(err)
}

// attachOnly sends a put with nothing between Attach and the shard.
func (s *sharder) attachOnly(shard, key string, lease int64) error {
	op := opPut([]byte(key), []byte("v"), lease)
	_, err := s.Attach()(stages.CallShard)(s.t.Context(), stages.Call{Op: &stages.Op{Request: op}, Shard: s.shards[shard], Request: op})
	return stages.ErrorStatus(err)
}

func (s *sharder) put(shard, key string, lease int64) error {
	_, err := s.do(shard, opPut([]byte(key), []byte("v"), lease))
	return err
}

func (s *sharder) mustPut(shard, key string, lease int64) {
	s.t.Helper()
	if err := s.put(shard, key, lease); err != nil {
		s.t.Fatalf("put %s on %s with lease %x: %v", key, shard, lease, err)
	}
}

func (s *sharder) mustGrant(id, ttl int64) int64 {
	s.t.Helper()
	r, err := s.Grant(s.t.Context(), &pb.LeaseGrantRequest{ID: id, TTL: ttl})
	if err != nil {
		s.t.Fatalf("grant: %v", stages.ErrorStatus(err))
	}
	return r.ID
}

func (s *sharder) revoke(id int64) error {
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	_, err := s.Revoke(ctx, &pb.LeaseRevokeRequest{ID: id})
	return stages.ErrorStatus(err)
}

// expire does what home's etcd does when the time of leases is up.
func (s *sharder) expire(ids ...int64) {
	s.t.Helper()
	for _, id := range ids {
		rec, ok := s.known.lease(id)
		if !ok {
			s.t.Fatalf("lease %x is not known", id)
		}
		s.w.expireOn(s.w.home, rec.shardID)
	}
}

// expireOn does it to a lease of any etcd, by its id there.
func (w *world) expireOn(cluster string, id int64) {
	w.t.Helper()
	if _, err := pb.NewLeaseClient(w.conns[cluster]).LeaseRevoke(w.t.Context(), &pb.LeaseRevokeRequest{ID: id}, grpc.WaitForReady(true)); err != nil {
		w.t.Fatalf("lease %x on %s: %v", id, cluster, err)
	}
}

// keptAlive renews leases straight at home until let is called, so that they live while a
// test prepares what is to happen at their end, however busy the machine is. let gives a
// moment before the last renewal: from there on each has its whole time.
func (s *sharder) keptAlive(ids ...int64) (let func() time.Time) {
	s.t.Helper()
	stream := keepAlive(s.t, pb.NewLeaseClient(s.w.conns[s.w.home]))
	stop, done := make(chan struct{}), make(chan time.Time, 1)
	go func() {
		for {
			last := time.Now()
			for _, id := range ids {
				rec, _ := s.known.lease(id)
				if r, err := renew(stream, rec.shardID); err != nil || r.TTL == 0 {
					s.t.Errorf("renewal of lease %x: %v, %v", id, r, err)
				}
			}
			select {
			case <-stop:
				done <- last
				return
			case <-time.After(200 * time.Millisecond):
			}
		}
	}()
	let = sync.OnceValue(func() time.Time { close(stop); return <-done })
	s.t.Cleanup(func() { let() })
	return let
}

// get reads a key of a shard through the middleware.
func (s *sharder) get(shard, key string) *pb.RangeResponse {
	s.t.Helper()
	r, err := s.do(shard, opRange(&pb.RangeRequest{Key: []byte(key)}))
	if err != nil {
		s.t.Fatalf("get: %v", err)
	}
	return r.GetResponseRange()
}

// clientKeysOn are the keys of clients on a shard, read from its etcd.
func (w *world) clientKeysOn(shard string) (keys []string) {
	w.t.Helper()
	r, err := pb.NewKVClient(w.conns[shard]).Range(w.t.Context(), &pb.RangeRequest{Key: []byte{1}, RangeEnd: []byte{0}}, grpc.WaitForReady(true))
	if err != nil {
		w.t.Fatalf("shard %s: %v", shard, err)
	}
	for _, kv := range r.Kvs {
		keys = append(keys, string(kv.Key))
	}
	return keys
}

// leasesOn are the leases of a shard's etcd.
func (w *world) leasesOn(shard string) (ids []int64) {
	w.t.Helper()
	r, err := pb.NewLeaseClient(w.conns[shard]).LeaseLeases(w.t.Context(), &pb.LeaseLeasesRequest{}, grpc.WaitForReady(true))
	if err != nil {
		w.t.Fatalf("shard %s: %v", shard, err)
	}
	for _, l := range r.Leases {
		ids = append(ids, l.ID)
	}
	return ids
}

// records are the records at home, aliases aside.
func (w *world) records() (keys []string) {
	w.t.Helper()
	r, err := pb.NewKVClient(w.conns[w.home]).Range(w.t.Context(), &pb.RangeRequest{Key: []byte(recordPrefix), RangeEnd: prefixEnd(recordPrefix)}, grpc.WaitForReady(true))
	if err != nil {
		w.t.Fatal(err)
	}
	for _, kv := range r.Kvs {
		if _, _, alias := idOf(kv.Key, aliasPrefix); !alias {
			keys = append(keys, string(kv.Key))
		}
	}
	return keys
}

// left describes everything that remains of leases, "" if nothing does.
func (w *world) left() string {
	w.t.Helper()
	out := ""
	for _, n := range w.names {
		if keys := w.clientKeysOn(n); len(keys) > 0 {
			out += fmt.Sprintf(" keys on %s: %q", n, keys[:min(5, len(keys))])
		}
	}
	for _, n := range w.names {
		if !w.isApart() {
			break
		}
		if keys := w.keysAtCut(n); len(keys) > 0 {
			out += fmt.Sprintf(" keys readable on %s: %q", n, keys[:min(5, len(keys))])
		}
	}
	for _, n := range w.all() {
		if ids := w.leasesOn(n); len(ids) > 0 {
			out += fmt.Sprintf(" leases on %s: %x", n, ids[:min(5, len(ids))])
		}
	}
	if r := w.records(); len(r) > 0 {
		out += fmt.Sprintf(" records: %q", r[:min(5, len(r))])
	}
	return out
}

// eventually polls until f says "".
func eventually(t *testing.T, limit time.Duration, f func() string) {
	t.Helper()
	for deadline := time.Now().Add(limit); ; time.Sleep(20 * time.Millisecond) {
		what := f()
		if what == "" {
			return
		}
		if time.Now().After(deadline) {
			t.Fatalf("after %v still:%s", limit, what)
		}
	}
}

// wantRefusedAsOwed checks what a put is told whose lease is at its end with keys left
// that can't be deleted now: with one order over the shards they could still be read.
func (w *world) wantRefusedAsOwed(err error) {
	w.t.Helper()
	if w.isApart() {
		wantCode(w.t, err, codes.Unavailable, "sharder: lease ", "has ended, but is not finished")
		return
	}
	wantCode(w.t, err, codes.NotFound, "etcdserver: requested lease not found")
}
