package watch_test

import (
	"cmp"
	"context"
	"fmt"
	"slices"
	"testing"
	"time"

	"github.com/sourcegraph/conc"
	"google.golang.org/protobuf/proto"

	"github.com/sharder/sharder/integration/cable"
	"github.com/sharder/sharder/integration/etcdtest"
	"github.com/sharder/sharder/stages/order"
	"github.com/sharder/sharder/stages/watch"
	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	"go.etcd.io/etcd/api/v3/mvccpb"
	clientv3 "go.etcd.io/etcd/client/v3"
	"go.etcd.io/etcd/server/v3/embed"
)

// realm is one order over three shards, kept in an etcd of its own, and servers in front
// of them as they are in different processes: each with its own connections and its own
// Order. Writes go straight to the shards and are covered as a sharder would.
type realm struct {
	t       testing.TB
	home    *etcdtest.Etcd // of the order
	etcds   []*etcdtest.Etcd
	clients []*clientv3.Client
	rigs    []*rig
	orders  []*order.Order
	cables  []*cable.Cable // between the servers and home
}

func newRealm(t testing.TB, servers int, change func(*watch.Options), etcdOpts ...func(*embed.Config)) *realm {
	t.Helper()
	etcds := startEtcds(t, 4, etcdOpts...)
	m := &realm{t: t, home: etcds[3], etcds: etcds[:3]}
	genesis := &order.Genesis{Deployment: "00c0ffee00000001", Fingerprint: "f"}
	for i, e := range m.etcds {
		m.clients = append(m.clients, e.Client())
		genesis.Shards = append(genesis.Shards, order.GenesisShard{Name: string(rune('a' + i)), Revision: 1})
	}
	for range servers {
		c := cable.New(t, m.home.Endpoint)
		m.cables = append(m.cables, c)
		m.rigs = append(m.rigs, newRigOver(t, m.etcds, func(o *watch.Options) {
			ord := startOrder(t, order.Options{Shards: o.Table.Shards(), Fingerprint: "f", Journal: order.NewEtcd(shardConn(t, c.Addr))}, genesis)
			m.orders = append(m.orders, ord)
			o.Order = ord
			if change != nil {
				change(o)
			}
		}))
	}
	return m
}

func startOrder(t testing.TB, o order.Options, g *order.Genesis) *order.Order {
	t.Helper()
	if _, err := order.Create(t.Context(), o.Journal, g); err != nil {
		t.Fatal(err)
	}
	ord := order.New(o)
	if err := ord.Load(t.Context()); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	var wg conc.WaitGroup
	wg.Go(func() { _ = ord.Run(ctx) })
	t.Cleanup(func() { cancel(); wg.Wait() })
	return ord
}

// feed is a feed from one of the servers.
func (m *realm) feed(server int) *feed { return newFeed(m.t, m.t.Context(), m.rigs[server].endpoint) }

// write does what a sharder does with a write on one shard, and gives its global revision.
func (m *realm) write(server int, ops ...clientv3.Op) int64 {
	m.t.Helper()
	rev, err := m.tryWrite(m.t.Context(), server, ops...)
	if err != nil {
		m.t.Fatal(err)
	}
	return rev
}

func (m *realm) tryWrite(ctx context.Context, server int, ops ...clientv3.Op) (int64, error) {
	shard := shardOf(ops[0].KeyBytes(), 3)
	r, err := m.clients[shard].Txn(ctx).Then(ops...).Commit()
	if err != nil {
		return 0, err
	}
	if err := m.orders[server].Cover(ctx, shard, r.Header.Revision); err != nil {
		return 0, err
	}
	return m.orders[server].Revision(shard, r.Header.Revision), nil
}

func (m *realm) put(key, value string) int64 {
	m.t.Helper()
	return m.write(0, clientv3.OpPut(key, value))
}

// spread writes n values all over the shards and gives the newest global revision.
func (m *realm) spread(n, size int) int64 {
	m.t.Helper()
	value := string(make([]byte, size))
	var wg conc.WaitGroup
	errs := make(chan error, n)
	for w := range 8 {
		wg.Go(func() {
			for i := w; i < n; i += 8 {
				if _, err := m.tryWrite(m.t.Context(), i%len(m.orders), clientv3.OpPut(fmt.Sprintf("%s%02d", prefixes[i%3], i%40), value)); err != nil {
					errs <- err
				}
			}
		})
	}
	wg.Wait()
	close(errs)
	for err := range errs {
		m.t.Fatal(err)
	}
	return m.now()
}

// now is the newest global revision.
func (m *realm) now() int64 {
	m.t.Helper()
	cut, err := m.orders[0].Now(m.t.Context())
	if err != nil {
		m.t.Fatal(err)
	}
	return cut.Revision
}

// history is everything that ever happened, in the order, as the shards tell it
// themselves.
func (m *realm) history() []*mvccpb.Event {
	m.t.Helper()
	o := m.orders[0]
	var out []*mvccpb.Event
	for i, e := range m.etcds {
		evs := newRecord(m.t, e).upTo(head(m.t, m.clients[i]))
		if len(evs) == 0 {
			continue
		}
		if err := o.Await(m.t.Context(), i, evs[len(evs)-1].Kv.ModRevision); err != nil { // it may be past the head of before
			m.t.Fatal(err)
		}
		for _, ev := range evs {
			ev = proto.CloneOf(ev)
			for _, kv := range []*mvccpb.KeyValue{ev.Kv, ev.PrevKv} {
				if kv != nil {
					kv.ModRevision = o.Revision(i, kv.ModRevision)
				}
				if kv != nil && kv.CreateRevision > 0 {
					kv.CreateRevision = o.Revision(i, kv.CreateRevision)
				}
			}
			out = append(out, ev)
		}
	}
	slices.SortStableFunc(out, func(a, b *mvccpb.Event) int { return cmp.Compare(a.Kv.ModRevision, b.Kv.ModRevision) })
	return out
}

// storm writes to all shards through all servers until stop is called, which waits for the
// writes that are under way: one that was given up might land at any time.
func (m *realm) storm(pause time.Duration) (stop func()) {
	ctx, cancel := context.WithCancel(context.Background())
	var wg conc.WaitGroup
	for w := range 6 {
		wg.Go(func() {
			for i := 0; ctx.Err() == nil; i++ {
				short, done := context.WithTimeout(context.WithoutCancel(ctx), 20*time.Second)
				p := prefixes[w%3]
				key := fmt.Sprintf("%s%02d", p, (i*7+w)%40)
				ops := []clientv3.Op{clientv3.OpPut(key, fmt.Sprint(i))}
				switch i % 9 {
				case 3:
					ops = []clientv3.Op{clientv3.OpDelete(key)}
				case 5:
					ops = append(ops, clientv3.OpDelete(p+"1", clientv3.WithRange(p+"15")), clientv3.OpPut(p+"50", "x"))
				}
				_, _ = m.tryWrite(short, w%len(m.orders), ops...)
				done()
				if pause > 0 {
					time.Sleep(pause)
				}
			}
		})
	}
	return func() { cancel(); wg.Wait() }
}

// everything is a watch of the whole key space.
func everything(start int64) *pb.WatchCreateRequest {
	return &pb.WatchCreateRequest{Key: []byte{0}, RangeEnd: []byte{0}, StartRevision: start, PrevKv: true}
}

// compact compacts at a global revision, on all shards before it returns.
func (m *realm) compact(rev int64) {
	m.t.Helper()
	if _, err := m.orders[0].Compact(m.t.Context(), &pb.CompactionRequest{Revision: rev, Physical: true}); err != nil {
		m.t.Fatal(err)
	}
}

// dense checks that a history is that of one etcd from revision 2 on: no revision is left
// out.
func dense(t testing.TB, events []*mvccpb.Event) {
	t.Helper()
	last := int64(1)
	for _, ev := range events {
		if rev := ev.Kv.ModRevision; rev != last && rev != last+1 {
			t.Fatalf("revision %d after %d", rev, last)
		}
		last = ev.Kv.ModRevision
	}
}
