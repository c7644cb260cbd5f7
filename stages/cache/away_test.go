package cache_test

import (
	"context"
	"fmt"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/sourcegraph/conc"

	"github.com/sharder/sharder/integration/cable"
	"github.com/sharder/sharder/integration/etcdproc"
	"github.com/sharder/sharder/integration/etcdtest"
	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
)

// ages reads k all the time, on several goroutines and with little patience, and notes when
// the read began that an old value came back to last.
type ages struct {
	newest atomic.Int64 // when such a read began, on the test's clock
	served atomic.Int64
	stop   func()
}

func watchAges(r *rig, old string, since time.Time) *ages {
	a := &ages{}
	ctx, cancel := context.WithCancel(context.Background())
	var wg conc.WaitGroup
	for range 4 {
		wg.Go(func() {
			for ctx.Err() == nil {
				a.once(ctx, r, old, since)
			}
		})
	}
	a.stop = func() { cancel(); wg.Wait() }
	r.t.Cleanup(a.stop)
	return a
}

func (a *ages) once(ctx context.Context, r *rig, old string, since time.Time) {
	began := time.Since(since)
	ctx, cancel := context.WithTimeout(ctx, 20*time.Millisecond)
	defer cancel()
	resp, err := r.kv.Range(ctx, &pb.RangeRequest{Key: []byte("k"), Serializable: true})
	if err != nil || value(resp) != old {
		return
	}
	a.served.Add(1)
	for seen := a.newest.Load(); int64(began) > seen && !a.newest.CompareAndSwap(seen, int64(began)); seen = a.newest.Load() {
	}
}

// The shard does not answer, and somebody else writes: what is in memory is served for
// MaxAge and not longer.
func TestWhatIsServedIsNeverOlderThanMaxAge(t *testing.T) {
	t.Parallel()
	for _, maxAge := range []time.Duration{200 * time.Millisecond, time.Second} {
		for name, break_ := range map[string]func(c *cable.Cable){"held": (*cable.Cable).Hold, "cut": (*cable.Cable).Cut} {
			t.Run(fmt.Sprint(name, maxAge), func(t *testing.T) {
				t.Parallel()
				e := etcdtest.Start(t)
				line := cable.New(t, e.Endpoint)
				r := newRig(t, e, func(o *options) { o.target, o.MaxAge, o.AuthInterval = line.Addr, maxAge, time.Minute })
				put(t, r.kv, "k", "old", 0)
				r.warm(t.Context(), key("k"))
				start := time.Now()
				a := watchAges(r, "old", start)
				time.Sleep(2 * maxAge)
				before := r.cache.Stats().Hits
				eventually(t, time.Minute, "signs of life that have it served from memory", func() bool { return r.cache.Stats().Hits > before })
				break_(line)
				broken := time.Since(start)
				put(t, r.etcd, "k", "new", 0)
				time.Sleep(2*maxAge + 100*time.Millisecond)
				a.stop()
				if last := time.Duration(a.newest.Load()); last > broken+maxAge {
					t.Errorf("old value %v after the shard was out of reach", last-broken)
				}
				line.Mend()
				line.Release()
				eventually(t, time.Minute, "the new value", func() bool {
					ctx, cancel := context.WithTimeout(t.Context(), time.Second)
					defer cancel()
					resp, err := r.kv.Range(ctx, &pb.RangeRequest{Key: []byte("k"), Serializable: true})
					return err == nil && value(resp) == "new"
				})
				if v := value(r.warm(t.Context(), key("k"))); v != "new" {
					t.Errorf("%q from memory", v)
				}
			})
		}
	}
}

// Until then nobody waits for the shard.
func TestWhatIsKeptIsServedWhileTheShardIsOutOfReach(t *testing.T) {
	t.Parallel()
	e := etcdtest.Start(t)
	line := cable.New(t, e.Endpoint)
	r := newRig(t, e, func(o *options) { o.target, o.MaxAge, o.AuthInterval = line.Addr, time.Hour, time.Hour })
	put(t, r.kv, "k", "old", 0)
	r.warm(t.Context(), key("k"))
	line.Hold()
	put(t, r.etcd, "k", "new", 0)
	before := r.cache.Stats().Hits
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	for range 10 {
		if v := value(r.read(ctx, key("k"))); v != "old" {
			t.Fatalf("%q, which nobody can know", v)
		}
	}
	if n := r.cache.Stats().Hits - before; n != 10 {
		t.Errorf("%d of 10 reads were answered from memory", n)
	}
	line.Release()
}

// A shard that can't be asked whether a client still may read can't have it read on.
func TestNobodyReadsOnWhileTheShardCannotBeAsked(t *testing.T) {
	t.Parallel()
	const interval = 400 * time.Millisecond
	e := etcdtest.Start(t)
	line := cable.New(t, e.Endpoint)
	r := newRig(t, e, func(o *options) { o.target, o.AuthInterval = line.Addr, interval })
	put(t, r.kv, "k", "old", 0)
	r.warm(t.Context(), key("k"))
	start := time.Now()
	a := watchAges(r, "old", start)
	eventually(t, time.Minute, "he reads on while it can be asked", func() bool { return a.newest.Load() > int64(2*interval) })
	line.Hold()
	held := time.Since(start)
	time.Sleep(3 * interval)
	a.stop()
	if last := time.Duration(a.newest.Load()); last > held+interval {
		t.Errorf("the last answer %v after the shard was out of reach", last-held)
	}
}

// write puts a key straight into a cluster, which may elect a leader at any time.
func write(t *testing.T, kv pb.KVClient, key, value string) {
	t.Helper()
	eventually(t, time.Minute, "a write", func() bool {
		ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
		defer cancel()
		_, err := kv.Put(ctx, &pb.PutRequest{Key: []byte(key), Value: []byte(value)})
		return err == nil
	})
}

// A member that is frozen, not cut off: its sockets stay open.
func TestAFrozenMemberIsNotTrustedLongerThanMaxAge(t *testing.T) {
	t.Parallel()
	cluster := etcdproc.Start(t, 3)
	frozen := cluster.Follower()
	at := func(i int) string { return strings.TrimPrefix(cluster.Endpoint(i), "http://") }
	other := (frozen + 1) % 3
	r := newRigTo(t, etcdtest.Conn(t, at(other)), at(frozen), func(o *options) { o.MaxAge = 500 * time.Millisecond })
	write(t, r.etcd, "k", "old")
	eventually(t, time.Minute, "the member has it", func() bool { return value(r.read(t.Context(), key("k"))) == "old" })
	r.warm(t.Context(), key("k"))
	start := time.Now()
	a := watchAges(r, "old", start)
	time.Sleep(time.Second)
	cluster.Pause(frozen)
	paused := time.Since(start)
	write(t, r.etcd, "k", "new")
	time.Sleep(1500 * time.Millisecond)
	a.stop()
	if last := time.Duration(a.newest.Load()); last > paused+500*time.Millisecond {
		t.Errorf("old value %v after the member was frozen", last-paused)
	}
	cluster.Resume(frozen)
	eventually(t, time.Minute, "the new value, from memory", func() bool {
		before := r.cache.Stats().Hits
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		resp, err := r.kv.Range(ctx, &pb.RangeRequest{Key: []byte("k"), Serializable: true})
		return err == nil && value(resp) == "new" && r.cache.Stats().Hits > before
	})
}

// A member without a leader says so and ends the watchers: nothing is kept for it.
func TestAMemberWithoutALeaderEndsTheWatchers(t *testing.T) {
	t.Parallel()
	cluster := etcdproc.Start(t, 3)
	lonely := cluster.Follower()
	at := strings.TrimPrefix(cluster.Endpoint(lonely), "http://")
	r := newRigTo(t, etcdtest.Conn(t, at), at, nil)
	write(t, r.etcd, "k", "v")
	r.warm(t.Context(), key("k"))
	for i := range 3 {
		if i != lonely {
			cluster.Pause(i)
		}
	}
	eventually(t, time.Minute, "no watchers", func() bool { return r.cache.Stats().Watchers == 0 })
	if v := value(r.read(t.Context(), key("k"))); v != "v" { // as etcd itself answers
		t.Fatal(v)
	}
	for i := range 3 {
		if i != lonely {
			cluster.Resume(i)
		}
	}
	eventually(t, time.Minute, "it is cached again", func() bool {
		before := r.cache.Stats().Hits
		r.read(t.Context(), key("k"))
		return r.cache.Stats().Hits > before
	})
}

// An etcd that is restarted ends the stream. What was written meanwhile is not missed.
func TestAnEndOfTheStreamMissesNothing(t *testing.T) {
	t.Parallel()
	e := etcdtest.Start(t)
	line := cable.New(t, e.Endpoint)
	r := newRig(t, e, func(o *options) { o.target = line.Addr })
	for i := range 10 {
		want := fmt.Sprint(i)
		put(t, r.kv, "k", want+"old", 0)
		r.warm(t.Context(), key("k"))
		line.Cut()
		put(t, r.etcd, "k", want, 0)
		line.Mend()
		eventually(t, soon, "the new value", func() bool {
			resp, err := r.kv.Range(t.Context(), &pb.RangeRequest{Key: []byte("k"), Serializable: true})
			return err == nil && value(resp) == want
		})
	}
}
