package main

import (
	"bytes"
	"context"
	"fmt"
	"log/slog"
	"net"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/sourcegraph/conc"

	"github.com/sharder/sharder/conf"
	"github.com/sharder/sharder/integration/etcdtest"
	"github.com/sharder/sharder/integration/ports"
	clientv3 "go.etcd.io/etcd/client/v3"
)

// gatewayRun runs what parse has read until the test ends.
func gatewayRun(t *testing.T, cfg *conf.Config) {
	t.Helper()
	ctx, stop := context.WithCancel(context.Background())
	var wg conc.WaitGroup
	var out bytes.Buffer
	wg.Go(func() {
		if err := serveGateways(ctx, cfg, &out, slog.New(slog.DiscardHandler)); err != nil {
			t.Error(err)
		}
	})
	t.Cleanup(func() {
		stop()
		wg.Wait()
		if !strings.Contains(out.String(), "serving on "+cfg.Gateways[0].Listen) {
			t.Errorf("it said %q", out.String())
		}
	})
}

// A client of etcd notices nothing, and is served on when an endpoint goes and when it is
// the only one left.
func TestEtcdIsServedThroughAGateway(t *testing.T) {
	t.Parallel()
	etcd := etcdtest.Start(t)
	listen := ports.Of(t)
	f := newGatewayFlags(&bytes.Buffer{})
	dead := ports.Of(t)
	if err := f.parse([]string{"--listen-addr", listen, "--endpoints", "http://" + dead + "," + etcd.Client().Endpoints()[0], "--drain-timeout", "1s"}); err != nil {
		t.Fatal(err)
	}
	gatewayRun(t, &f.cfg)
	within(t, 30*time.Second, func() error {
		c, err := net.Dial("tcp", listen)
		if err == nil {
			_ = c.Close()
		}
		return err
	})
	c := etcdtest.Client(t, listen)
	for i := range 20 {
		within(t, 30*time.Second, func() error { return put(c, fmt.Sprint("k", i)) })
	}
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
	defer cancel()
	w := c.Watch(ctx, "k", clientv3.WithPrefix(), clientv3.WithRev(2))
	for seen := 0; seen < 20; {
		r, ok := <-w
		if !ok || r.Err() != nil {
			t.Fatal("the watch ended:", r.Err())
		}
		seen += len(r.Events)
	}
}

// Gateways and shards run in one process, and stop together.
func TestAGatewayBesideShards(t *testing.T) {
	t.Parallel()
	etcd := etcdtest.Start(t)
	listen := ports.Of(t)
	endpoint := etcd.Client().Endpoints()[0]
	r := start(t, fmt.Sprintf("drain_timeout = \"1s\"\n[shards.a]\nendpoints = [%q]\n[routes]\n\"\" = \"a\"\n[gateways.past]\nlisten = %q\nendpoints = [%q]\n", endpoint, listen, endpoint))
	through, past := r.client(), etcdtest.Client(t, listen)
	within(t, 30*time.Second, func() error { return put(through, "k") })
	within(t, 30*time.Second, func() error {
		got, err := past.Get(t.Context(), "k")
		if err == nil && got.Count != 1 {
			err = fmt.Errorf("%d keys", got.Count)
		}
		return err
	})
	_ = past.Close()
	if err := r.end(); err != nil {
		t.Fatal(err)
	}
	if out := r.out.String(); !strings.Contains(out, "gateway past: serving on "+listen) {
		t.Fatal(out)
	}
}

func TestTheFlagsOfEtcdGateway(t *testing.T) {
	// All seven that etcd gateway has, each with a value that is not its default.
	f := newGatewayFlags(&bytes.Buffer{})
	if err := f.parse(strings.Fields("--listen-addr=127.0.0.1:1 --discovery-srv=example.com --discovery-srv-name=blue --insecure-discovery=false --trusted-ca-file=ca.pem --retry-delay=7s")); err != nil {
		t.Fatal(err)
	}
	want := conf.DefaultGateway("gateway")
	want.Listen, want.DiscoverySRV, want.DiscoveryName, want.TrustedCA, want.ProbeInterval = "127.0.0.1:1", "example.com", "blue", "ca.pem", 7*time.Second
	if fmt.Sprint(f.cfg.Gateways) != fmt.Sprint([]conf.Gateway{want}) {
		t.Fatalf("%+v", f.cfg.Gateways)
	}
	f = newGatewayFlags(&bytes.Buffer{})
	if err := f.parse(nil); err != nil || f.g.Listen != "127.0.0.1:23790" || fmt.Sprint(f.g.Endpoints) != "[127.0.0.1:2379]" {
		t.Fatal(err, f.g)
	}
	for args, want := range map[string]string{
		"--endpoints=a":               `--endpoints: "a" is no address`,
		"--endpoints=127.0.0.1:23790": "the gateway itself",
		"--listen-addr=x":             `--listen-addr: "x" is no address`,
		"--endpoints=":                "--endpoints: there is none",
		"--retry-delay=1":             `invalid argument "1" for "--retry-delay" flag: want a time`,
		"--retry-delay=0s":            "--retry-delay: 0s is not a time to wait",
		"--strategy=fastest":          "none of round-robin",
		"--connections=0":             "--connections: it is at least 1",
		"--discovery-srv-name=x --connections=-1 more": `unexpected argument "more"`,
		"--nonsense":     "unknown flag: --nonsense",
		"--endpoint=a:1": "did you mean --endpoints?",
	} {
		if err := newGatewayFlags(&bytes.Buffer{}).parse(strings.Fields(args)); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v", args, err)
		}
	}
}

// What etcd gateway takes and does not look at is taken here, too, and told.
func TestFlagsOfEtcdGatewayThatSayNothingAreTold(t *testing.T) {
	for args, want := range map[string]string{
		"--endpoints=a:1,http://b:2/v3,a:1 --trusted-ca-file=x --insecure-discovery": "[a:1 http://b:2] insecure-discovery trusted-ca-file",
		"--discovery-srv=d --endpoints=a:1":                                          "[] endpoints",
		"--discovery-srv=d --trusted-ca-file=x":                                      "[]",
	} {
		f := newGatewayFlags(&bytes.Buffer{})
		if err := f.parse(strings.Fields(args)); err != nil {
			t.Errorf("%s: %v", args, err)
			continue
		}
		have := fmt.Sprint(f.g.Endpoints)
		for _, note := range f.idle() {
			name, _, _ := strings.Cut(strings.TrimPrefix(note, "--"), " ")
			have += " " + name
		}
		if have != want {
			t.Errorf("%s: have %s, want %s", args, have, want)
		}
	}
}

func TestAGatewayThatCanNotStartSaysWhy(t *testing.T) {
	taken, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer taken.Close()
	var stderr bytes.Buffer
	if code := run([]string{"gateway", "start", "--listen-addr", taken.Addr().String()}, &bytes.Buffer{}, &stderr); code != exitFailed || !strings.Contains(stderr.String(), "address already in use") {
		t.Error(code, stderr.String())
	}
	stderr.Reset()
	missing := filepath.Join(t.TempDir(), "ca.pem")
	if code := run([]string{"gateway", "start", "--listen-addr", "127.0.0.1:0", "--discovery-srv", "example.invalid", "--trusted-ca-file", missing}, &bytes.Buffer{}, &stderr); code != exitFailed || !strings.Contains(stderr.String(), missing) {
		t.Error(code, stderr.String())
	}
	stderr.Reset()
	if code := run([]string{"gateway"}, &bytes.Buffer{}, &stderr); code != exitMisused || !strings.Contains(stderr.String(), "gateway start") {
		t.Error(code, stderr.String())
	}
}
