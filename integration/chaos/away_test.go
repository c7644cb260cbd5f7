package chaos

import (
	"context"
	"strings"
	"testing"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"

	"github.com/sharder/sharder/integration/witness"
)

// patience is how long a client waits for what is either done or refused at once.
const patience = 10 * time.Second

// put writes a key through a server.
func put(s witness.Server, key string) error {
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	_, err := pb.NewKVClient(s.Conn).Put(ctx, &pb.PutRequest{Key: []byte(key), Value: []byte("x")})
	return err
}

// list reads a range through a server.
func list(s witness.Server, key, end string, serializable bool) (int, error) {
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	res, err := pb.NewKVClient(s.Conn).Range(ctx, &pb.RangeRequest{Key: []byte(key), RangeEnd: []byte(end), Serializable: serializable})
	return len(res.GetKvs()), err
}

// refusedBy tells whether an error is one that sharder gives at once, naming what is away.
func refusedBy(err error, what string) bool {
	return status.Code(err) == codes.Unavailable && strings.HasPrefix(status.Convert(err).Message(), "sharder: ") && strings.Contains(err.Error(), what)
}

// onEveryShard puts a key on each shard.
func (f *ordered) onEveryShard(suffix string) {
	f.t.Helper()
	for _, prefix := range witness.Prefixes {
		if err := put(f.servers[0], prefix+suffix); err != nil {
			f.t.Fatal(err)
		}
	}
}

// revisions are where the shards themselves stand.
func (f *ordered) revisions() (revs [3]int64) {
	f.t.Helper()
	for i, c := range f.clusters[:3] {
		res, err := c.Client().Get(within(f.t, bound), "nothing")
		if err != nil {
			f.t.Fatal(err)
		}
		revs[i] = res.Header.Revision
	}
	return revs
}

func TestWithoutTheOrderClusterOnlySerializableReadsGoOn(t *testing.T) {
	t.Parallel()
	for name, away := range map[string][2]func(*ordered){
		"killed": {func(f *ordered) { f.orderCluster().Kill(0) }, func(f *ordered) { f.orderCluster().Start(0) }},
		"frozen": {func(f *ordered) { f.orderCluster().Pause(0) }, func(f *ordered) { f.orderCluster().Resume(0) }},
	} {
		t.Run(name, func(t *testing.T) {
			f := startOrdered(t, 1, 1, 1, 1)
			f.onEveryShard("1")
			for _, s := range f.servers {
				if n, err := list(s, "\x00", "\x00", false); n != 3 || err != nil {
					t.Fatalf("%d keys, %v", n, err)
				}
			}
			away[0](f)
			for _, s := range f.servers {
				witness.Eventually(t, bound, "refusals that name the order cluster", func() bool {
					_, err := list(s, "a", "", false)
					return refusedBy(err, "order cluster") && refusedBy(put(s, "a2"), "order cluster")
				})
			}
			before := f.revisions()
			for _, s := range f.servers {
				for range 5 {
					if err := put(s, "j2"); err == nil {
						t.Errorf("%s: a put was acknowledged", s.Name)
					}
					if n, err := list(s, "\x00", "\x00", true); n < 3 || err != nil {
						t.Errorf("%s: a serializable read: %d keys, %v", s.Name, n, err)
					}
				}
			}
			if after := f.revisions(); after != before {
				t.Errorf("writes that were refused touched the shards: %v became %v", before, after)
			}
			away[1](f)
			for _, s := range f.servers {
				witness.Eventually(t, bound, "writes and reads again", func() bool {
					_, err := list(s, "\x00", "\x00", false)
					return err == nil && put(s, "j2") == nil
				})
			}
		})
	}
}

func TestADeadShardCostsOnlyItselfUnderOneOrder(t *testing.T) {
	t.Parallel()
	f := startOrdered(t, 1, 1, 1, 1)
	f.onEveryShard("1")
	all := witness.Record(t, f.servers[0].Conn, "all", "\x00", "\x00", 0)
	first := witness.Record(t, f.servers[1].Conn, "a", "a", "b", 0)
	f.clusters[1].Kill(0)
	for _, s := range f.servers {
		witness.Eventually(t, bound, "refusals that name the shard", func() bool {
			_, err := list(s, "j1", "", false)
			return refusedBy(err, "two") && refusedBy(put(s, "j2"), "two")
		})
		for range 20 {
			if err := put(s, "a2"); err != nil {
				t.Errorf("%s: a put on another shard: %v", s.Name, err)
			}
			if _, err := list(s, "a", "b", false); err != nil {
				t.Errorf("%s: a read of another shard: %v", s.Name, err)
			}
			if _, err := list(s, "r", "\x00", false); err != nil {
				t.Errorf("%s: a read of the last shard: %v", s.Name, err)
			}
		}
		if _, err := list(s, "\x00", "\x00", false); !refusedBy(err, "two") {
			t.Errorf("%s: a read over all shards: %v", s.Name, err)
		}
	}
	witness.Eventually(t, bound, "the watch on another shard goes on", func() bool { return first.Saw(t, "a2") })
	f.clusters[1].Start(0)
	f.settle()
	for _, key := range []string{"a3", "j3", "z3"} {
		if err := put(f.servers[1], key); err != nil {
			t.Fatal(err)
		}
		witness.Eventually(t, bound, "the watch over all shards has "+key, func() bool { return all.Saw(t, key) })
	}
	if !all.Saw(t, "a2") {
		t.Error("the watch over all shards missed what happened meanwhile")
	}
}

// settle waits until both sharders read everything.
func (f *ordered) settle() {
	f.t.Helper()
	for _, s := range f.servers {
		witness.Eventually(f.t, bound, s.Name+" reads everything", func() bool {
			_, err := list(s, "\x00", "\x00", false)
			return err == nil
		})
	}
}
