package grpcproxy_test

import (
	"context"
	"testing"
	"time"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	clientv3 "go.etcd.io/etcd/client/v3"

	"github.com/sharder/sharder/integration/etcdproc"
)

// outages are what happens to one of three members. Each gives who it happens to.
var outages = []struct {
	name string
	// begin does it to a member, and end takes it back.
	begin, end func(d *door, i int)
	leader     bool // to the leader
}{
	{"nothing reaches it and nothing breaks", func(d *door, i int) { d.ways[i].Hold() }, func(d *door, i int) { d.ways[i].Release() }, false},
	{"nothing reaches the leader and nothing breaks", func(d *door, i int) { d.ways[i].Hold() }, func(d *door, i int) { d.ways[i].Release() }, true},
	{"it is cut off from the others", func(d *door, i int) { d.cluster.Isolate(i) }, func(d *door, i int) { d.cluster.Reconnect() }, false},
	{"the leader is cut off from the others", func(d *door, i int) { d.cluster.Isolate(i) }, func(d *door, i int) { d.cluster.Reconnect() }, true},
	{"it hears and is not heard", func(d *door, i int) { d.cluster.Mute(i) }, func(d *door, i int) { d.cluster.Reconnect() }, false},
}

// requests are what goes on in an outage.
var requests = []struct {
	name string
	ask  func(ctx context.Context, kv pb.KVClient) error
}{
	{"put", func(ctx context.Context, kv pb.KVClient) error {
		return second(kv.Put(ctx, &pb.PutRequest{Key: []byte("k"), Value: []byte("v")}))
	}},
	{"delete", func(ctx context.Context, kv pb.KVClient) error {
		return second(kv.DeleteRange(ctx, &pb.DeleteRangeRequest{Key: []byte("gone")}))
	}},
	{"transaction", func(ctx context.Context, kv pb.KVClient) error {
		return second(kv.Txn(ctx, &pb.TxnRequest{Success: puts(1, "k", "")}))
	}},
	{"linearizable read", func(ctx context.Context, kv pb.KVClient) error { return second(kv.Range(ctx, one("k"))) }},
	{"serializable read", func(ctx context.Context, kv pb.KVClient) error {
		return second(kv.Range(ctx, &pb.RangeRequest{Key: []byte("k"), Serializable: true}))
	}},
}

// etcd's TestBalancerUnderBlackhole* and TestBalancerUnderNetworkPartition*: whatever happens to
// one member, soon all requests are answered again, a watch goes on and so does a lease.
func TestRequestsGoOnWithoutOneMember(t *testing.T) {
	t.Parallel()
	d := open(t, sharder, &probe{members: 3, etcd: quick, cables: true, cluster: []etcdproc.Option{etcdproc.WithCables()}})
	ctx, kv := t.Context(), d.kv()
	w, err := d.watched(ctx, &pb.WatchCreateRequest{Key: []byte("seen")})
	if err != nil {
		t.Fatal(err)
	}
	c := d.client()
	lease, err := c.Grant(ctx, 15) // kept alive every five seconds, if nothing waits
	if err != nil {
		t.Fatal(err)
	}
	alive, err := c.KeepAlive(ctx, lease.ID)
	if err != nil {
		t.Fatal(err)
	}
	renewed := make(chan struct{})
	go func() {
		defer close(renewed)
		for range alive {
			select {
			case renewed <- struct{}{}:
			default:
			}
		}
	}()
	if _, err := c.Put(ctx, "held", "v", clientv3.WithLease(lease.ID)); err != nil {
		t.Fatal(err)
	}
	for _, o := range outages {
		i := d.cluster.Follower()
		if o.leader {
			i = d.cluster.Leader()
		}
		o.begin(d, i)
		began := time.Now()
		for _, r := range requests {
			d.goesOn(t, o.name+": "+r.name, began, func(ctx context.Context) error { return r.ask(ctx, kv) })
		}
		t.Logf("%s: all are answered again after %v at most", o.name, time.Since(began))
		d.goesOn(t, o.name+": a put that is seen", time.Now(), func(ctx context.Context) error {
			return second(kv.Put(ctx, &pb.PutRequest{Key: []byte("seen"), Value: []byte(o.name)}))
		})
		for told := false; !told; { // of an earlier one, too, that was written again
			m, err := w.next(soon)
			if err != nil || m.Canceled {
				t.Fatalf("%s: the watch: %v %v", o.name, m, err)
			}
			told = len(m.Events) > 0 && string(m.Events[len(m.Events)-1].Kv.Value) == o.name
		}
		o.end(d, i)
	}
	select {
	case _, ok := <-renewed:
		if !ok {
			t.Error("the lease was lost")
		}
	case <-after(soon):
		t.Error("the lease is not kept alive any more")
	}
	if r, err := c.Get(ctx, "held"); err != nil || len(r.Kvs) != 1 {
		t.Errorf("the lease: %v %v", r, err)
	}
}

// goesOn waits until ten requests in a row are answered in time.
func (d *door) goesOn(t *testing.T, what string, began time.Time, ask func(context.Context) error) {
	t.Helper()
	var last error
	for good := 0; good < 10; {
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		err := ask(ctx)
		cancel()
		if good++; err != nil {
			good, last = 0, err
		}
		if time.Since(began) > 2*soon {
			t.Fatalf("%s: not answered reliably after %v; the last error: %v", what, 2*soon, last)
		}
	}
}

// A lease is kept alive while the leader is frozen for longer than it lives. What etcd's
// TestLeaseRevoke_IgnoreOldLeader looks at, that the old leader ends no lease when it goes on, is
// etcd's own: version 3.7.3 does so now and then, with nothing in between, too.
func TestALeaseOutlivesAFrozenLeader(t *testing.T) {
	t.Parallel()
	const ttl = 10 // long enough to be left with half of it when another member is asked
	d := open(t, sharder, &probe{members: 3, etcd: quick})
	ctx, c := t.Context(), d.client()
	lease, err := c.Grant(ctx, ttl)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := c.Put(ctx, "k", "v", clientv3.WithLease(lease.ID)); err != nil {
		t.Fatal(err)
	}
	alive, err := c.KeepAlive(ctx, lease.ID)
	if err != nil {
		t.Fatal(err)
	}
	<-alive
	old := d.cluster.Leader()
	d.cluster.Pause(old)
	frozen := time.Now()
	for time.Since(frozen) < (ttl+2)*time.Second {
		select {
		case _, ok := <-alive:
			if !ok {
				t.Fatal("the lease was lost")
			}
		case <-after(2 * ttl * time.Second):
			t.Fatal("no keep-alive is answered")
		}
	}
	if r, err := c.Get(ctx, "k"); err != nil || len(r.Kvs) != 1 {
		t.Fatalf("%v %v", r, err)
	}
	d.cluster.Resume(old)
}
