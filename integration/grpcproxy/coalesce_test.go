package grpcproxy_test

import (
	"context"
	"testing"
	"time"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"

	"github.com/sharder/sharder/integration/ports"
)

// sharded is a door with sharder in it whose metrics can be read.
func sharded(t *testing.T, p *probe) *door {
	t.Helper()
	metrics := ports.Of(t)
	p.flags = append(p.flags, "--metrics-addr", "http://"+metrics)
	d := open(t, sharder, p)
	d.metrics = metrics
	return d
}

// gauge is a metric of sharder's own.
func (d *door) gauge(name string, labels ...string) float64 {
	d.t.Helper()
	f, err := figuresOf(d.metrics)
	if err != nil {
		d.t.Fatal(err)
	}
	return f.sum(name, labels...)
}

// R01: two hundred watchers of ten clients on one key are one watcher at etcd, and the gauges
// are right while they are there and after. With grpc-proxy they are one as well; its gauge says
// 0 then, and -199 when they have gone.
func TestTwoHundredWatchersAreOneAndCountedRight(t *testing.T) {
	t.Parallel()
	d := sharded(t, &probe{})
	ctx, leave := context.WithCancel(t.Context())
	defer leave()
	watchers := func() float64 { return d.behindFigures().sum("etcd_debugging_mvcc_watcher_total") }
	before := watchers()
	var all []*stream
	for range 10 {
		w, err := d.watching(ctx)
		if err != nil {
			t.Fatal(err)
		}
		for range 20 {
			if _, err := w.created(&pb.WatchCreateRequest{Key: []byte("k")}); err != nil {
				t.Fatal(err)
			}
		}
		all = append(all, w)
	}
	if n := watchers() - before; n != 1 {
		t.Errorf("%v watchers at etcd, want 1", n)
	}
	if !eventually(ctx, func() bool {
		return d.gauge("sharder_watch_watchers") == 200 && d.gauge("sharder_watch_upstream_watchers") == 1
	}) {
		t.Errorf("the gauges say %v of clients and %v upstream, want 200 and 1", d.gauge("sharder_watch_watchers"), d.gauge("sharder_watch_upstream_watchers"))
	}
	if _, err := d.client().Put(ctx, "k", "v"); err != nil {
		t.Fatal(err)
	}
	for i, w := range all {
		for range 20 {
			if m, err := w.next(soon); err != nil || len(m.Events) != 1 {
				t.Fatalf("client %d: %v, %v", i, m, err)
			}
		}
	}
	leave()
	if !eventually(t.Context(), func() bool {
		return d.gauge("sharder_watch_watchers") == 0 && d.gauge("sharder_watch_upstream_watchers") == 0 && watchers() == before
	}) {
		t.Errorf("afterwards there are %v of clients, %v upstream, and %v at etcd, want 0, 0 and %v",
			d.gauge("sharder_watch_watchers"), d.gauge("sharder_watch_upstream_watchers"), watchers(), before)
	}
}

// Q05: in front of a cluster with users nothing of sharder's own grows while nobody asks it
// anything. grpc-proxy opens ten streams and thirty watches a second, which are refused, and says
// that it is not well.
func TestAnIdleProxyBeforeUsersIsIdle(t *testing.T) {
	t.Parallel()
	const rest = 4 * time.Second
	p := &probe{}
	d := sharded(t, p)
	if err := d.withUsers(t.Context()); err != nil {
		t.Fatal(err)
	}
	// One who has been there: what was opened for him is not opened again and again.
	if _, err := d.client("ann").Put(t.Context(), "a", "v"); err != nil {
		t.Fatal(err)
	}
	var before, after figures
	growth := func(name string, labels ...string) float64 {
		return after.sum(name, labels...) - before.sum(name, labels...)
	}
	// What comes of that is over some time.
	after = d.behindFigures()
	eventually(t.Context(), func() bool {
		time.Sleep(rest / 4)
		before, after = after, d.behindFigures()
		return growth("grpc_server_started_total", `grpc_type="bidi_stream"`) == 0 && growth("grpc_server_started_total", `grpc_method="Range"`) == 0 &&
			growth("etcd_debugging_mvcc_watcher_total") == 0
	})
	before = after
	began := time.Now()
	time.Sleep(rest)
	after = d.behindFigures()
	took := time.Since(began)
	for what, n := range map[string]float64{
		"streams":      growth("grpc_server_started_total", `grpc_type="bidi_stream"`) + growth("grpc_server_started_total", `grpc_type="server_stream"`),
		"watchers":     growth("etcd_debugging_mvcc_watcher_total"),
		"logins":       growth("grpc_server_started_total", `grpc_method="Authenticate"`),
		"proposals":    growth("etcd_server_proposals_applied_total"),
		"linear reads": growth("grpc_server_started_total", `grpc_method="Range"`),
	} {
		if n > 0 {
			t.Errorf("%v more %s at etcd after %v of nothing", n, what, rest)
		}
	}
	// Probes of the member are one a second, and each is a question or two.
	if n := growth("grpc_server_started_total"); n > 3*(took.Seconds()+1) {
		t.Errorf("%v requests in %v of nothing", n, took)
	}
	for _, path := range []string{"/health", "/readyz", "/livez"} {
		if code, text, err := get("http://" + d.metrics + path); err != nil || code != 200 {
			t.Errorf("%s: %d %s %v", path, code, text, err)
		}
	}
}
