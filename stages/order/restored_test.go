package order_test

import (
	"context"
	"os"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/sharder/sharder/integration/etcdtest"
	"github.com/sharder/sharder/stages/order"
	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	"go.etcd.io/etcd/server/v3/embed"
)

// backup is an etcd whose data directory can be copied and put back.
type backup struct {
	t     *testing.T
	etcd  *etcdtest.Etcd
	dir   string
	saved string
}

// backups makes an option that remembers the data directories of the etcds it is used on.
func backups(dirs *[]string) etcdtest.Option {
	return func(cfg *embed.Config) { *dirs = append(*dirs, cfg.Dir) }
}

func (b *backup) save() {
	b.t.Helper()
	b.etcd.Stop()
	b.saved = b.t.TempDir()
	if err := os.CopyFS(b.saved, os.DirFS(b.dir)); err != nil {
		b.t.Fatal(err)
	}
	b.etcd.Restart()
}

func (b *backup) restore() {
	b.t.Helper()
	b.etcd.Stop()
	if err := os.RemoveAll(b.dir); err != nil {
		b.t.Fatal(err)
	}
	if err := os.CopyFS(b.dir, os.DirFS(b.saved)); err != nil {
		b.t.Fatal(err)
	}
	b.etcd.Restart()
}

// settled repeats a call while its cluster can't be reached, since its connection has to
// come back, and gives its error.
func settled(ctx context.Context, call func(context.Context) error) error {
	for {
		once, cancel := context.WithTimeout(ctx, 5*time.Second)
		err := call(once)
		cancel()
		if code := status.Code(err); ctx.Err() != nil || code != codes.Unavailable && code != codes.DeadlineExceeded {
			return err
		}
		time.Sleep(20 * time.Millisecond)
	}
}

func (s *sharder) tryPut(key string) func(context.Context) error {
	return func(ctx context.Context) error {
		_, err := s.put(ctx, &pb.PutRequest{Key: []byte(key), Value: []byte("x")})
		return err
	}
}

func (s *sharder) tryGet(key string) func(context.Context) error {
	return func(ctx context.Context) error {
		_, err := s.rng(ctx, &pb.RangeRequest{Key: []byte(key)})
		return err
	}
}

// refused wants an error of sharder's that says that something went back in time.
func (r *rig) refused(what string, err error) {
	r.t.Helper()
	if status.Code(err) != codes.DataLoss || !strings.Contains(err.Error(), "back in time") {
		r.t.Fatalf("%s: %v", what, err)
	}
}

// noProbe keeps a sharder from noticing anything but by the request at hand.
func noProbe(o *order.Options) { o.ProbeInterval = time.Hour }

// C9: a shard that is put back to an old copy of its data while sharders run is refused by
// all of them, and by those that start later; the other shards go on.
func TestAShardRestoredFromABackupIsRefused(t *testing.T) {
	t.Parallel()
	var dirs []string
	r := newRigOf(t, []etcdtest.Option{backups(&dirs)}, 2)
	writer, reader, prober := r.sharder(noProbe), r.sharder(noProbe), r.sharder(nil)
	b := &backup{t: t, etcd: r.etcds[0], dir: dirs[0]}
	r.Put(writer, "a", "saved")
	b.save()
	for range 5 {
		if err := settled(r.ctx(), writer.tryPut("a")); err != nil {
			t.Fatal(err)
		}
	}
	if err := settled(r.ctx(), reader.tryGet("a")); err != nil {
		t.Fatal(err)
	}
	b.restore()
	r.refused("a write", settled(r.ctx(), writer.tryPut("a")))
	r.refused("the read after it", writer.tryGet("a")(r.ctx()))
	r.refused("a read", settled(r.ctx(), reader.tryGet("a")))
	r.refused("the write after it", reader.tryPut("a")(r.ctx()))
	r.refused("over several shards", func() error {
		_, err := reader.rng(r.ctx(), &pb.RangeRequest{Key: []byte("a"), RangeEnd: []byte("z")})
		return err
	}())
	r.eventually("the one that nobody asks notices as well", func() bool {
		return status.Code(prober.tryPut("a")(r.ctx())) == codes.DataLoss
	})
	late := r.sharder(noProbe)
	r.refused("a sharder that inspects it at its start", late.Inspect(r.ctx(), 0, etcdtest.Conn(t, r.etcds[0].Endpoint)))
	r.refused("and from then on", late.tryPut("a")(r.ctx()))
	for _, s := range []*sharder{writer, reader, prober, late} {
		r.Put(s, "b", "goes on")
		if got := r.Range(s, "b", ""); !strings.HasPrefix(got, "b=goes on@") {
			t.Fatal(got)
		}
	}
}

// swap is a connection that from some moment on leads to another etcd.
type swap struct {
	grpc.ClientConnInterface
	other atomic.Pointer[grpc.ClientConn]
}

func (s *swap) Invoke(ctx context.Context, method string, args, reply any, opts ...grpc.CallOption) error {
	if o := s.other.Load(); o != nil {
		return o.Invoke(ctx, method, args, reply, opts...)
	}
	return s.ClientConnInterface.Invoke(ctx, method, args, reply, opts...)
}

// A cluster with another id is refused, even if its revisions are far enough and it has
// the shard's stamp.
func TestAnotherClusterInAShardsPlaceIsRefused(t *testing.T) {
	t.Parallel()
	r := newRig(t, 2)
	start := func() (*sharder, *swap) {
		w := &swap{}
		return r.sharder(noProbe, func(shard int, c grpc.ClientConnInterface) grpc.ClientConnInterface {
			if shard != 0 {
				return c
			}
			w.ClientConnInterface = c
			return w
		}), w
	}
	other := etcdtest.Start(t, func(cfg *embed.Config) { cfg.InitialClusterToken = "another" })
	for range 20 {
		if _, err := other.Client().Put(t.Context(), order.RoutesKey, r.genesis.Fingerprint); err != nil {
			t.Fatal(err)
		}
	}
	for name, try := range map[string]func(*sharder) error{
		"a write": func(s *sharder) error { return s.tryPut("a")(r.ctx()) },
		"a read":  func(s *sharder) error { return s.tryGet("a")(r.ctx()) },
		"a look":  func(s *sharder) error { return s.Inspect(r.ctx(), 0, other.Conn()) },
	} {
		s, w := start()
		r.Put(s, "a", "1")
		w.other.Store(other.Conn())
		err := try(s)
		r.refused(name, err)
		if !strings.Contains(err.Error(), "was the cluster") {
			t.Errorf("%s: %v", name, err)
		}
		r.refused("what comes after "+name, s.tryPut("a")(r.ctx()))
		r.Put(s, "b", "goes on")
	}
}

// The order cluster put back to an old copy of its data: what asks it is refused, whether
// a request or the following of the log comes first. Serializable reads go on.
func TestAnOrderClusterRestoredFromABackupIsRefused(t *testing.T) {
	t.Parallel()
	var dirs []string
	r := newRig(t, 2)
	r.order = etcdtest.Start(t, backups(&dirs))
	b := &backup{t: t, etcd: r.order, dir: dirs[0]}
	s, idle := r.sharder(noProbe), r.sharder(noProbe)
	r.Put(s, "a", "saved")
	b.save()
	for range 5 {
		if err := settled(r.ctx(), s.tryPut("a")); err != nil {
			t.Fatal(err)
		}
	}
	r.eventually("both have replayed it", func() bool { return idle.Position() == s.Position() })
	had := r.Range(s, "a", "", func(q *pb.RangeRequest) { q.Serializable = true })
	b.restore()
	r.refused("a read", settled(r.ctx(), s.tryGet("a")))
	r.refused("a write", s.tryPut("b")(r.ctx()))
	if got := r.Range(s, "a", "", func(q *pb.RangeRequest) { q.Serializable = true }); got != had {
		t.Fatalf("a serializable read: %s, before %s", got, had)
	}
	r.eventually("the one that nobody asks notices as well", idle.Lost)
	// It is no use that the log grows again.
	late := r.sharder(nil)
	for range 10 {
		r.Put(late, "b", "x")
	}
	r.refused("a read of the one that was idle", idle.tryGet("a")(r.ctx()))
}
