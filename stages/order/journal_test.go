package order_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"strings"
	"sync/atomic"
	"testing"

	"github.com/sourcegraph/conc"
	"google.golang.org/grpc"

	"github.com/sharder/sharder/integration/etcdtest"
	"github.com/sharder/sharder/stages/order"
	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	clientv3 "go.etcd.io/etcd/client/v3"
)

// log is a journal in a real etcd, and that etcd.
type log struct {
	*order.Etcd
	t    testing.TB
	etcd *etcdtest.Etcd
	c    *clientv3.Client
}

func newLog(t testing.TB) *log {
	e := etcdtest.Start(t)
	return &log{Etcd: order.NewEtcd(e.Conn()), t: t, etcd: e, c: e.Client()}
}

// append adds n entries, which are no entries to anybody but the journal.
func (l *log) append(n int) (position int64) {
	l.t.Helper()
	for i := range n {
		pos, err := l.Append(l.t.Context(), fmt.Appendf(nil, "entry %d", i))
		if err != nil {
			l.t.Fatal(err)
		}
		position = pos
	}
	return position
}

// madeUp makes up a checkpoint of some pieces; what it says is of no interest to a journal.
func madeUp(seed uint64, size int) []byte {
	rnd := rand.New(rand.NewPCG(seed, 1))
	b := make([]byte, size)
	for i := range b {
		b[i] = byte(rnd.Uint32())
	}
	return b
}

// load wants a checkpoint that is whole, and that the log goes on from.
func (l *log) load() order.Checkpoint {
	l.t.Helper()
	c, err := l.Load(l.t.Context())
	if err != nil {
		l.t.Fatal(err)
	}
	if want := madeUp(uint64(c.Position), len(c.Text)); !bytes.Equal(c.Text, want) {
		l.t.Fatalf("the checkpoint at %d is not what was saved", c.Position)
	}
	return c
}

// pieces are the keys of all pieces that lie in the cluster.
func (l *log) pieces() (keys []string) {
	l.t.Helper()
	r, err := l.c.Get(l.t.Context(), "\x00sharder/order/piece/", clientv3.WithPrefix(), clientv3.WithKeysOnly())
	if err != nil {
		l.t.Fatal(err)
	}
	for _, kv := range r.Kvs {
		keys = append(keys, string(kv.Key))
	}
	return keys
}

var errEnough = errors.New("enough")

// follow collects the positions of entries from behind a position up to another one.
func follow(ctx context.Context, j order.Journal, from, to int64) (positions []int64, err error) {
	err = j.Follow(ctx, from, func(r order.Record) error {
		if r.Entry != nil {
			positions = append(positions, r.Position)
		}
		if r.Position >= to {
			return errEnough
		}
		return nil
	})
	if errors.Is(err, errEnough) {
		err = nil
	}
	return positions, err
}

func TestEntriesHavePositionsInTheirOrder(t *testing.T) {
	t.Parallel()
	l := newLog(t)
	if pos, err := l.Position(t.Context()); err != nil || pos != 0 {
		t.Fatalf("before the first: %d, %v", pos, err)
	}
	if _, err := l.Load(t.Context()); !errors.Is(err, order.ErrNoLog) {
		t.Fatalf("before the first: %v", err)
	}
	if ok, err := l.Create(t.Context(), []byte("first")); err != nil || !ok {
		t.Fatal(ok, err)
	}
	c, err := l.Load(t.Context())
	if err != nil || c.Text != nil {
		t.Fatalf("%+v, %v", c, err)
	}
	want := []int64{c.Position + 1}
	for range 20 {
		if _, err := l.c.Put(t.Context(), "\x00sharder/lease/x", ""); err != nil { // positions may have gaps
			t.Fatal(err)
		}
		want = append(want, l.append(1))
	}
	last := want[len(want)-1]
	if pos, err := l.Position(t.Context()); err != nil || pos != last {
		t.Fatalf("%d, %v, want %d", pos, err, last)
	}
	if got, err := follow(t.Context(), l, c.Position, last); err != nil || fmt.Sprint(got) != fmt.Sprint(want) {
		t.Fatalf("followed %v, %v, want %v", got, err, want)
	}
	var numbers []int64
	_ = l.Follow(t.Context(), want[9], func(r order.Record) error {
		if numbers = append(numbers, r.Number); r.Position == last {
			return errEnough
		}
		return nil
	})
	if fmt.Sprint(numbers) != "[11 12 13 14 15 16 17 18 19 20 21]" {
		t.Fatalf("numbered %v", numbers)
	}
}

func TestOfManyThatBeginALogOneDoes(t *testing.T) {
	t.Parallel()
	l := newLog(t)
	var created atomic.Int64
	var wg conc.WaitGroup
	for i := range 8 {
		wg.Go(func() {
			ok, err := order.Create(t.Context(), order.NewEtcd(l.etcd.Conn()), &order.Genesis{
				Deployment: fmt.Sprintf("%016x", i+1), Shards: []order.GenesisShard{{Name: "a", Revision: 1}},
			})
			if err != nil {
				t.Error(err)
			}
			if ok {
				created.Add(1)
			}
		})
	}
	wg.Wait()
	if n := created.Load(); n != 1 {
		t.Fatalf("%d have", n)
	}
	if r, err := l.c.Get(t.Context(), "\x00sharder/order/log"); err != nil || r.Kvs[0].Version != 1 {
		t.Fatalf("%v, %v", r, err)
	}
}

// The log behind a checkpoint is given back; who needs it is told to load.
func TestTheLogIsForgottenBehindACheckpoint(t *testing.T) {
	t.Parallel()
	l := newLog(t)
	old := l.append(5)
	pos := l.append(5)
	last := l.append(5)
	if err := l.Save(t.Context(), order.Checkpoint{Position: pos, Text: madeUp(uint64(pos), 100)}); err != nil {
		t.Fatal(err)
	}
	if _, err := l.c.Get(t.Context(), "k", clientv3.WithRev(pos-1)); err == nil || !strings.Contains(err.Error(), "compacted") {
		t.Fatalf("the history before the checkpoint is still there: %v", err)
	}
	if _, err := follow(t.Context(), l, old, last); !errors.Is(err, order.ErrForgotten) {
		t.Fatalf("following from before the checkpoint: %v", err)
	}
	c := l.load()
	got, err := follow(t.Context(), l, c.Position, last)
	if err != nil || c.Position != pos || fmt.Sprint(got) != fmt.Sprint([]int64{pos + 1, pos + 2, pos + 3, pos + 4, pos + 5}) {
		t.Fatalf("from the checkpoint at %d: %v, %v", c.Position, got, err)
	}
}

// A log with an entry that a newer sharder wrote is refused by one that runs and by one
// that starts, as is a checkpoint; nothing is skipped.
func TestANewerLogIsRefusedWhole(t *testing.T) {
	t.Parallel()
	for name, write := range map[string][2]string{
		"entry":      {"\x00sharder/order/log", "\x03\x02\x00\x63"},
		"kind":       {"\x00sharder/order/log", "\x01\x63"},
		"checkpoint": {"\x00sharder/order/log.checkpoint", `{"version":3,"position":5,"pieces":1,"bytes":5}`},
	} {
		r := newRig(t, 1)
		s := r.sharder(nil)
		rev := r.Put(s, "a", "1")
		if _, err := r.order.Client().Put(t.Context(), write[0], write[1]); err != nil {
			t.Fatal(err)
		}
		r.eventually(name+": the one that runs refuses it", s.Lost)
		if err := s.tryPut("a")(r.ctx()); err == nil || !strings.Contains(err.Error(), "newer") && !strings.Contains(err.Error(), "as new as") {
			t.Errorf("%s: a write: %v", name, err)
		}
		if got := r.Range(s, "a", "", func(q *pb.RangeRequest) { q.Serializable = true }); got != fmt.Sprintf("a=1@%d/%d at %d", rev, rev, rev) {
			t.Errorf("%s: a serializable read: %s", name, got)
		}
		o := order.New(order.Options{Journal: order.NewEtcd(r.order.Conn()), Shards: r.table(nil).Shards()})
		if err := o.Load(r.ctx()); !errors.Is(err, order.ErrNewer) {
			t.Errorf("%s: the one that starts: %v", name, err)
		}
	}
}

// A sharder that was cut off while the log was forgotten loads the checkpoint and goes on;
// so does one that starts.
func TestASharderThatFallsBehindLoadsTheCheckpoint(t *testing.T) {
	t.Parallel()
	r := newRig(t, 2)
	w := &wire{}
	behind := r.sharder(nil, func(shard int, c grpc.ClientConnInterface) grpc.ClientConnInterface {
		if shard == -1 {
			w.ClientConnInterface = c
			return w
		}
		return c
	})
	s := r.sharder(nil)
	r.Put(s, "a", "0")
	r.eventually("both have it", func() bool { return behind.Position() == s.Position() })
	cut := func(context.Context) error { return errors.New("cut off") }
	w.set(func(ctx context.Context, _ string, _ any) error { return cut(ctx) })
	w.setStream(cut)
	had := behind.Position()
	for i := range 10 {
		r.Put(s, "b", fmt.Sprint(i))
		r.Put(s, "a", fmt.Sprint(i))
	}
	if err := s.Save(r.ctx()); err != nil {
		t.Fatal(err)
	}
	last := r.Put(s, "a", "last")
	w.set(nil)
	w.setStream(nil)
	want := fmt.Sprintf("a=last@2/%d b=9@3/%d at %d", last, last-2, last)
	for name, x := range map[string]*sharder{"behind": behind, "starts": r.sharder(nil), "saved": s} {
		if err := settled(r.ctx(), x.tryGet("a")); err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		if got := r.Range(x, "a", "z"); got != want {
			t.Errorf("%s: got %s, want %s", name, got, want)
		}
		if got := r.Range(x, "a", "z", atRevision(4)); got != fmt.Sprintf("a=0@2/4 b=0@3/3 at %d", last) {
			t.Errorf("%s: of the past: %s", name, got)
		}
	}
	if behind.Position() <= had {
		t.Error("it never fell behind")
	}
}
