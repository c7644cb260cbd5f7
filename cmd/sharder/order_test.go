package main

import (
	"context"
	"fmt"
	"log/slog"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/sourcegraph/conc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/sharder/sharder/conf"
	"github.com/sharder/sharder/integration/etcdtest"
	"github.com/sharder/sharder/stages"
	"github.com/sharder/sharder/stages/backend"
	clientv3 "go.etcd.io/etcd/client/v3"
)

// underOrder is a configuration of two shards with one order: keys from "m" on are on b.
func underOrder(order *etcdtest.Etcd, shards ...*etcdtest.Etcd) string {
	var endpoints []string
	for _, e := range shards {
		endpoints = append(endpoints, e.Endpoint)
	}
	return fmt.Sprintf("[order]\nendpoints = [%q]\n", order.Endpoint) + external(endpoints...)
}

// clusters are an order etcd and two shards.
func clusters(t *testing.T) (order, a, b *etcdtest.Etcd) {
	return etcdtest.Start(t), etcdtest.Start(t), etcdtest.Start(t)
}

// putAt puts a key, once it can be, and gives the answer's revision. It has long enough: one that is cut
// off may have its revision all the same.
func putAt(t *testing.T, c *clientv3.Client, key string) (rev int64) {
	t.Helper()
	within(t, 30*time.Second, func() error {
		ctx, cancel := context.WithTimeout(context.Background(), 30*time.Second)
		defer cancel()
		r, err := c.Put(ctx, key, "v")
		if err == nil {
			rev = r.Header.Revision
		}
		return err
	})
	return rev
}

// refused wants the sharder to end of its own accord, and its error to say all of it.
func refused(t *testing.T, r *sharderRun, want ...string) {
	t.Helper()
	r.wg.Wait()
	for _, w := range want {
		if r.err == nil || !strings.Contains(r.err.Error(), w) {
			t.Errorf("%q is not in\n%v", w, r.err)
		}
	}
}

func TestTheOrderClusterHasOneNameEverywhere(t *testing.T) {
	if conf.OrderName != stages.OrderName {
		t.Errorf("%q and %q", conf.OrderName, stages.OrderName)
	}
}

func TestFreshShardsUnderOneOrderCountFromTwo(t *testing.T) {
	t.Parallel()
	order, a, b := clusters(t)
	toml := underOrder(order, a, b)
	r := start(t, toml)
	c := r.client()
	for i, key := range []string{"a", "z", "b", "y"} {
		if rev := putAt(t, c, key); rev != int64(i+2) {
			t.Errorf("the put of %s is at revision %d, want %d", key, rev, i+2)
		}
	}
	g, err := c.Get(t.Context(), "", clientv3.WithFromKey())
	if err != nil || g.Header.Revision != 5 || len(g.Kvs) != 4 || g.Kvs[1].ModRevision != 4 || g.Kvs[2].ModRevision != 5 {
		t.Errorf("%v, %v", g, err)
	}
	if err := r.end(); err != nil {
		t.Fatal(err)
	}
	if out := r.out.String(); !strings.Contains(out, "2 shards, one revision") || !strings.Contains(out, "order: "+order.Endpoint) {
		t.Errorf("it said %s", out)
	}
	r = start(t, toml) // another sharder goes on where the first one ended
	if rev := putAt(t, r.client(), "c"); rev != 6 {
		t.Errorf("after a restart the next put is at revision %d, want 6", rev)
	}
}

// slowness is a warning that says no more than that a member took long to answer.
var slowness = regexp.MustCompile(`msg="?(member does not answer|member answers probes|waiting for the order cluster|shard is out of reach).*(no answer to|[Dd]eadline ?[Ee]xceeded|no member answers)`)

func TestAnEmbeddedOrderKeepsItsDataOverARestart(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	toml := fmt.Sprintf("data_dir = %q\n[order]\nembedded = true\n[shards.a]\nembedded = true\n", dir)
	for i := range 2 {
		r := start(t, toml)
		if rev := putAt(t, r.client(), "k"); rev != int64(i+2) {
			t.Errorf("revision %d, want %d", rev, i+2)
		}
		if err := r.end(); err != nil {
			t.Fatal(err)
		}
		for line := range strings.Lines(r.log.String()) {
			if strings.Contains(line, "level=WARN") && !slowness.MatchString(line) {
				t.Errorf("it logged %s", line)
			}
		}
	}
	if found, _ := filepath.Glob(filepath.Join(dir, "*")); fmt.Sprint(found) != fmt.Sprint([]string{filepath.Join(dir, "a"), filepath.Join(dir, "order")}) {
		t.Errorf("the data is in %q", found)
	}
}

func TestShardersThatStartAtOnceBeginOneDeployment(t *testing.T) {
	t.Parallel()
	order, a, b := clusters(t)
	toml := underOrder(order, a, b)
	var runs []*sharderRun
	for range 4 {
		runs = append(runs, start(t, toml))
	}
	revs := make([]int64, 8)
	var wg conc.WaitGroup
	for i, r := range runs {
		wg.Go(func() {
			c := r.client()
			revs[2*i], revs[2*i+1] = putAt(t, c, fmt.Sprint("a", i)), putAt(t, c, fmt.Sprint("z", i))
		})
	}
	wg.Wait()
	slices.Sort(revs)
	if fmt.Sprint(revs) != "[2 3 4 5 6 7 8 9]" {
		t.Errorf("the puts are at revisions %v", revs)
	}
	deployments := map[uint64]bool{}
	for _, r := range runs {
		g, err := r.client().Get(t.Context(), "a")
		if err != nil {
			t.Fatal(err)
		}
		deployments[g.Header.ClusterId] = true
	}
	if len(deployments) != 1 {
		t.Errorf("there are deployments %v", deployments)
	}
}

func TestASharderWithAnotherTableIsRefusedByTheOrder(t *testing.T) {
	t.Parallel()
	order, a, b := clusters(t)
	toml := underOrder(order, a, b)
	putAt(t, start(t, toml).client(), "k")
	refused(t, start(t, strings.Replace(toml, `"m"`, `"n"`, 1)), `- from "m" on`, `+ from "n" on`, "give this sharder the [routes]")
	swapped := fmt.Sprintf("[order]\nendpoints = [%q]\n[shards.b]\nendpoints = [%q]\n[shards.a]\nendpoints = [%q]\n[routes]\n\"\" = \"a\"\n\"m\" = \"b\"\n", order.Endpoint, b.Endpoint, a.Endpoint)
	refused(t, start(t, swapped), "- shards in their order: a, b", "+ shards in their order: b, a", "back into their old order")
	more := strings.Replace(toml, "[routes]", fmt.Sprintf("[shards.c]\nendpoints = [%q]\n[routes]\n\"x\" = \"c\"", etcdtest.Start(t).Endpoint), 1)
	refused(t, start(t, more), "- shards in their order: a, b", "+ shards in their order: a, b, c", "fixed when it begins")
}

func TestClustersThatAreNotThoseTheDeploymentBeganWithAreRefused(t *testing.T) {
	t.Parallel()
	order, a, b := clusters(t)
	other, c, d := clusters(t)
	fresh := etcdtest.Start(t)
	for _, toml := range []string{underOrder(order, a, b), underOrder(other, c, d)} {
		r := start(t, toml)
		putAt(t, r.client(), "k")
		if err := r.end(); err != nil {
			t.Fatal(err)
		}
	}
	for name, c := range map[string]struct {
		toml string
		want []string
	}{
		"another deployment's order":   {underOrder(other, a, b), []string{"order cluster is stamped for something else", "- deployment: ", "correct the endpoints of [order]"}},
		"another deployment's shard":   {underOrder(order, a, d), []string{"shard b is stamped for something else", "correct the endpoints of [shards.b]"}},
		"a shard in the order's place": {underOrder(b, a, order), []string{"the endpoints of [shards.b] and [order] are mixed up"}},
		"an order that lost its data":  {underOrder(fresh, a, b), []string{"the order cluster has no stamp, and the shards have"}},
		"a shard that lost its data":   {underOrder(order, fresh, b), []string{"shard a has no stamp, but the order log knows it", "[shards.a]"}},
	} {
		t.Run(name, func(t *testing.T) { refused(t, start(t, c.toml), c.want...) })
	}
	g, err := fresh.Client().Get(t.Context(), "\x00", clientv3.WithFromKey())
	if err != nil || g.Count != 0 {
		t.Errorf("a sharder that refused to start has written %v, %v", g, err)
	}
}

func TestAnOrderClusterInUseForSomethingElseIsRefused(t *testing.T) {
	t.Parallel()
	order, a, b := clusters(t)
	if _, err := order.Client().Put(t.Context(), "mine", "1"); err != nil {
		t.Fatal(err)
	}
	refused(t, start(t, underOrder(order, a, b)), `the order cluster holds the key "mine"`)
}

func TestADeploymentStaysTheShapeItBeganAs(t *testing.T) {
	t.Parallel()
	order, a, b := clusters(t)
	r := start(t, external(a.Endpoint, b.Endpoint))
	putAt(t, r.client(), "k")
	refused(t, start(t, underOrder(order, a, b)), "- home of leases: a", "began without [order]", "Take the table [order] out")
	order, a, b = clusters(t)
	r = start(t, underOrder(order, a, b))
	putAt(t, r.client(), "k")
	refused(t, start(t, external(a.Endpoint, b.Endpoint)), "- home of leases: [order]", "add the table [order] again")
}

func TestASharderWaitsForItsOrderCluster(t *testing.T) {
	t.Parallel()
	order, a, b := clusters(t)
	order.Stop()
	r := start(t, underOrder(order, a, b))
	within(t, 30*time.Second, func() error {
		if log := r.log.String(); !strings.Contains(log, "waiting for the order cluster") || !strings.Contains(log, "no member answers") {
			return fmt.Errorf("it logged\n%s", log)
		}
		return nil
	})
	order.Restart()
	if rev := putAt(t, r.client(), "k"); rev != 2 {
		t.Errorf("revision %d", rev)
	}
}

func TestASharderThatWaitsForItsOrderClusterCanBeStopped(t *testing.T) {
	t.Parallel()
	order, a, b := clusters(t)
	order.Stop()
	r := start(t, underOrder(order, a, b))
	within(t, 30*time.Second, func() error {
		if !strings.Contains(r.log.String(), "waiting") {
			return fmt.Errorf("it does not wait")
		}
		return nil
	})
	if err := r.end(); err != nil {
		t.Error(err)
	}
}

func TestABeginningThatWasBrokenOffIsTakenUp(t *testing.T) {
	t.Parallel()
	order, a, b := clusters(t)
	toml := underOrder(order, a, b)
	cfg, err := conf.Parse("test.toml", []byte(toml))
	if err != nil {
		t.Fatal(err)
	}
	f, err := openFleet(cfg, slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	// The order cluster and the first shard are stamped; then the sharder dies.
	for _, s := range []struct {
		conn *etcdtest.Etcd
		name string
	}{{order, stages.OrderName}, {a, "a"}} {
		stamp := f.stampOf(s.name)
		stamp.Deployment = "00c0ffee"
		if _, err := backend.CheckStamp(t.Context(), s.conn.Conn(), stamp); err != nil {
			t.Fatal(err)
		}
	}
	if err := f.Close(); err != nil {
		t.Fatal(err)
	}
	for i := range 2 {
		if rev := putAt(t, start(t, toml).client(), "z"); rev != int64(i+2) {
			t.Errorf("revision %d, want %d", rev, i+2)
		}
	}
}

func TestADeploymentBeginsWhenAllShardsCanBeReached(t *testing.T) {
	t.Parallel()
	order, a, b := clusters(t)
	b.Stop()
	r := start(t, underOrder(order, a, b))
	within(t, 30*time.Second, func() error {
		if log := r.log.String(); !strings.Contains(log, "begins when all shards can be reached") || !strings.Contains(log, "shard b") {
			return fmt.Errorf("it logged\n%s", log)
		}
		return nil
	})
	b.Restart()
	putAt(t, r.client(), "z")
	if err := r.end(); err != nil {
		t.Fatal(err)
	}
	// Once it has begun, one that is down costs its own keys only.
	b.Stop()
	r = start(t, underOrder(order, a, b))
	c := r.client()
	if rev := putAt(t, c, "a"); rev != 3 {
		t.Errorf("revision %d, want 3", rev)
	}
	if err := put(c, "z"); status.Code(err) != codes.Unavailable || !strings.Contains(err.Error(), "shard b") {
		t.Errorf("a key of the shard that is down: %v", err)
	}
	b.Restart()
	if rev := putAt(t, c, "z"); rev != 4 {
		t.Errorf("revision %d, want 4", rev)
	}
}
