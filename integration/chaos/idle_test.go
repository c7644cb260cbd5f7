package chaos

import (
	"context"
	"testing"
	"time"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"

	"github.com/sharder/sharder/integration/witness"
)

// read gets a key through a server, once.
func read(t *testing.T, s witness.Server, key string) (value string, rev int64) {
	t.Helper()
	res, err := pb.NewKVClient(s.Conn).Range(within(t, bound), &pb.RangeRequest{Key: []byte(key)})
	if err != nil {
		t.Fatalf("%s: %v", s.Name, err)
	}
	if len(res.Kvs) == 0 {
		return "", 0
	}
	return string(res.Kvs[0].Value), res.Kvs[0].ModRevision
}

// direct puts a key on a shard, past every sharder.
func (f *ordered) direct(shard int, key, value string) {
	f.t.Helper()
	if _, err := f.clusters[shard].Client().Put(within(f.t, bound), key, value); err != nil {
		f.t.Fatal(err)
	}
}

func TestADirectWriteIsSeenByReadsAlthoughNobodyAsks(t *testing.T) {
	t.Parallel()
	f := startOrdered(t, 1, 1, 1, 1)
	f.direct(1, "j1", "one")
	f.direct(2, "z1", "two")
	time.Sleep(5 * time.Second) // nobody reads, writes or watches
	var revs [2][2]int64
	for i, s := range f.servers {
		for k, want := range map[int][2]string{0: {"j1", "one"}, 1: {"z1", "two"}} {
			value, rev := read(t, s, want[0])
			if revs[i][k] = rev; value != want[1] {
				t.Errorf("%s: %s is %q", s.Name, want[0], value)
			}
		}
	}
	if revs[0] != revs[1] || min(revs[0][0], revs[0][1]) != 2 || max(revs[0][0], revs[0][1]) != 3 {
		t.Errorf("revisions %v", revs)
	}
}

func TestADirectWriteIsSeenByWatchesOfAnIdleSystem(t *testing.T) {
	t.Parallel()
	f := startOrdered(t, 1, 1, 1, 1)
	var watches []*witness.Recorder
	for _, s := range f.servers {
		watches = append(watches, witness.Record(t, s.Conn, "all", "\x00", "\x00", 0), witness.Record(t, s.Conn, "j", "j", "k", 0))
	}
	time.Sleep(2 * time.Second) // the watches are old news
	start := time.Now()
	f.direct(1, "j1", "one")
	for _, w := range watches {
		witness.Eventually(t, bound, "a watch sees a direct write", func() bool { return w.Saw(t, "j1") })
	}
	t.Logf("seen after %v", time.Since(start))
}

func TestTheEndOfALeaseIsSeenByWatchesAndReadsOfAnIdleSystem(t *testing.T) {
	t.Parallel()
	f := startOrdered(t, 1, 1, 1, 1)
	leased(t, f.servers[0].Conn, 6)
	watch := witness.Record(t, f.servers[1].Conn, "all", "\x00", "\x00", 0)
	start := time.Now()
	for _, key := range witness.Prefixes {
		witness.Eventually(t, 6*time.Second+late, "the end of "+key, func() bool { return watch.Deletes(key) == 1 })
	}
	t.Logf("a lease of 6 s ended after %v", time.Since(start))
	for _, s := range f.servers {
		if keys := keysAt(t, s.Conn); len(keys) > 0 {
			t.Errorf("%s still has %q", s.Name, keys)
		}
	}
}

// A sharder writes to a shard and dies before it can have the write covered: nobody knows
// of it but the shard. Another sharder finds it and gives it its revision.
func TestAWriteIsCoveredThoughItsSharderDied(t *testing.T) {
	t.Parallel()
	f := startOrdered(t, 1, 1, 1, 1)
	for i, s := range f.servers { // both are at work
		if _, err := pb.NewKVClient(s.Conn).Put(within(t, bound), &pb.PutRequest{Key: []byte{'a' + byte(i)}, Value: []byte("x")}); err != nil {
			t.Fatal(err)
		}
	}
	watch := witness.Record(t, f.servers[1].Conn, "all", "\x00", "\x00", 0)
	for _, line := range f.linesTo(0, 3) {
		line.Hold()
	}
	ctx, cancel := context.WithTimeout(context.Background(), 5*time.Second)
	defer cancel()
	if _, err := pb.NewKVClient(f.servers[0].Conn).Put(ctx, &pb.PutRequest{Key: []byte("j1"), Value: []byte("one")}); err == nil {
		t.Fatal("acknowledged without a place in the order")
	}
	got, err := f.clusters[1].Client().Get(within(t, bound), "j1")
	if err != nil || len(got.Kvs) != 1 {
		t.Fatalf("the shard has %v, %v", got, err)
	}
	f.sharders[0].Kill()
	witness.Eventually(t, bound, "the other sharder's watch sees it", func() bool { return watch.Saw(t, "j1") })
	if value, rev := read(t, f.servers[1], "j1"); value != "one" || rev != 4 {
		t.Errorf("it is %q at revision %d", value, rev)
	}
}
