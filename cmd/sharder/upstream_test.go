package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"math"
	"net/url"
	"path/filepath"
	"reflect"
	"strings"
	"testing"
	"time"

	"github.com/sourcegraph/conc"

	"github.com/sharder/sharder/conf"
	"github.com/sharder/sharder/integration/certs"
	"github.com/sharder/sharder/integration/dnstest"
	"github.com/sharder/sharder/integration/etcdtest"
	"github.com/sharder/sharder/integration/ports"
	"github.com/sharder/sharder/stages/backend"
	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	"go.etcd.io/etcd/client/pkg/v3/transport"
	"go.etcd.io/etcd/server/v3/embed"
)

// The file names other members, of a cluster that goes on: the new ones are used, and what
// was under way goes on.
func TestTheMembersOfAShardFollowTheFile(t *testing.T) {
	t.Parallel()
	e := etcdtest.Start(t)
	_, port, _ := strings.Cut(e.Endpoint, ":")
	listen, operators, file := ports.Of(t), ports.Of(t), filepath.Join(t.TempDir(), "sharder.toml")
	write := func(endpoints string) {
		t.Helper()
		text := fmt.Sprintf("listen = [%q]\nmetrics = %q\n[shards.a]\nendpoints = [%s]\n", listen, operators, endpoints)
		rewrite(t, file, text)
	}
	write(fmt.Sprintf("%q", e.Endpoint))
	cfg, err := conf.Load(file)
	if err != nil {
		t.Fatal(err)
	}
	ctx, stop := context.WithCancel(context.Background())
	var wg conc.WaitGroup
	defer wg.Wait()
	defer stop()
	wg.Go(func() {
		if err := serve(ctx, cfg, io.Discard, slog.New(slog.DiscardHandler)); err != nil {
			t.Error(err)
		}
	})
	client := etcdtest.Client(t, listen)
	within(t, 30*time.Second, func() error { return put(client, "k") })
	watch := client.Watch(ctx, "k")
	answers(t, operators, "/metrics", 200, fmt.Sprintf("sharder_endpoint_healthy{endpoint=%q,shard=\"a\"} 1", e.Endpoint))
	write(fmt.Sprintf("%q", "localhost:"+port)) // the same member by another name
	answers(t, operators, "/metrics", 200, fmt.Sprintf("sharder_endpoint_healthy{endpoint=%q,shard=\"a\"} 1", "localhost:"+port))
	within(t, 30*time.Second, func() error {
		if _, body := fetch(operators, "/metrics"); strings.Contains(body, fmt.Sprintf("endpoint=%q", e.Endpoint)) {
			return fmt.Errorf("the old endpoint is still there")
		}
		return nil
	})
	if err := put(client, "k"); err != nil {
		t.Fatal(err)
	}
	if r := <-watch; r.Err() != nil || len(r.Events) != 1 {
		t.Errorf("the watch: %+v", r)
	}
}

func TestAnyCertificateOfAMemberIsGoodIfTheFileSaysSo(t *testing.T) {
	t.Parallel()
	cert, key := certs.New(t, "nobody-knows").IssueFor("elsewhere", "elsewhere.example.com")
	e := etcdtest.Start(t, func(c *embed.Config) {
		any := url.URL{Scheme: "https", Host: "127.0.0.1:0"}
		c.ListenClientUrls, c.AdvertiseClientUrls = []url.URL{any}, []url.URL{any}
		c.ClientTLSInfo = transport.TLSInfo{CertFile: cert, KeyFile: key}
	})
	shard := fmt.Sprintf("[shards.a]\nendpoints = [%q]\n", "https://"+e.Endpoint)
	any := start(t, shard+"tls.insecure_skip_verify = true\n").client()
	within(t, 30*time.Second, func() error { return put(any, "k") })
	conn := start(t, shard).conn()
	within(t, 30*time.Second, func() error {
		_, err := pb.NewKVClient(conn).Range(t.Context(), &pb.RangeRequest{Key: []byte("k")})
		if err == nil || !strings.Contains(err.Error(), "certificate") {
			return fmt.Errorf("without it: %v", err)
		}
		return nil
	})
}

// This test asks the one resolver of the process, and so runs beside no other.
func TestMembersAreFoundInTheDomainOfTheFile(t *testing.T) {
	dns, e := dnstest.New(t), etcdtest.Start(t)
	names.Store(dns.Resolver())
	defer names.Store(nil)
	dns.Set("etcd-client-blue", dnstest.Record(t, e.Endpoint))
	r := start(t, "[shards.a]\ndiscovery_srv = \"example.com\"\ndiscovery_srv_name = \"blue\"\ninsecure_discovery = true\ndiscovery_interval = \"50ms\"\n")
	within(t, 30*time.Second, func() error { return put(r.client(), "k") })
	asked := dns.Asked()
	within(t, 30*time.Second, func() error {
		if dns.Asked() <= asked+2 {
			return errors.New("it is not looked up again")
		}
		return nil
	})
	if err := r.end(); err != nil {
		t.Error(err)
	}
}

func TestWhatTheFileSaysOfMembersReachesThem(t *testing.T) {
	t.Parallel()
	file := func(lines string) backend.Options {
		t.Helper()
		cfg, err := conf.Parse("test.toml", []byte("[shards.a]\n"+lines))
		if err != nil {
			t.Fatal(err)
		}
		o, err := clusterOptions(cfg.Shards[0], nil)
		if err != nil {
			t.Fatal(err)
		}
		return o
	}
	have := file("endpoints = [\"h:1\"]\n")
	want := backend.Options{
		Name: "a", Endpoints: []string{"h:1"}, DiscoveryInterval: 30 * time.Second, HealthInterval: time.Second, Timeout: 30 * time.Second,
		KeepaliveTime: 10 * time.Second, KeepaliveTimeout: 3 * time.Second, MaxSendBytes: math.MaxInt32, MaxRecvBytes: math.MaxInt32,
	}
	if !reflect.DeepEqual(have, want) {
		t.Errorf("by default %+v\nwant %+v", have, want)
	}
	have = file(`discovery_srv = "example.com"
discovery_srv_name = "n"
insecure_discovery = true
discovery_interval = "1s"
auto_sync_interval = "2s"
keepalive_time = "0s"
keepalive_timeout = "4s"
keepalive_without_calls = true
max_send_bytes = "5KiB"
max_recv_bytes = "6KiB"
`)
	want = backend.Options{
		Name: "a", DiscoverySRV: "example.com", DiscoveryName: "n", InsecureDiscovery: true, DiscoveryInterval: time.Second, AutoSyncInterval: 2 * time.Second,
		HealthInterval: time.Second, Timeout: 30 * time.Second,
		KeepaliveTime: -1, KeepaliveTimeout: 4 * time.Second, KeepaliveWithoutCalls: true, MaxSendBytes: 5 << 10, MaxRecvBytes: 6 << 10,
	}
	if !reflect.DeepEqual(have, want) {
		t.Errorf("have %+v\nwant %+v", have, want)
	}
}

func TestMessagesHaveTheBoundsOfTheFile(t *testing.T) {
	t.Parallel()
	e := etcdtest.Start(t)
	value := bytes.Repeat([]byte("v"), 64<<10)
	ask := func(toml string) (put, get error) {
		c := start(t, fmt.Sprintf("[shards.a]\nendpoints = [%q]\n%s", e.Endpoint, toml)).client()
		kv := pb.NewKVClient(c.ActiveConnection())
		ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
		defer cancel()
		within(t, 30*time.Second, func() error {
			_, err := kv.Range(ctx, &pb.RangeRequest{Key: []byte("absent")})
			return err
		})
		_, put = kv.Put(ctx, &pb.PutRequest{Key: []byte("large"), Value: value})
		_, get = kv.Range(ctx, &pb.RangeRequest{Key: []byte("large")})
		return put, get
	}
	if put, get := ask(""); put != nil || get != nil {
		t.Errorf("without bounds: %v, %v", put, get)
	}
	const sent, received = "rpc error: code = ResourceExhausted desc = sharder: shard a: trying to send message larger than max", "rpc error: code = ResourceExhausted desc = sharder: shard a: grpc: received message larger than max"
	if put, get := ask("max_send_bytes = \"32KiB\"\n"); put == nil || !strings.HasPrefix(put.Error(), sent) || get != nil {
		t.Errorf("with one for requests: %v, %v", put, get)
	}
	if put, get := ask("max_recv_bytes = \"32KiB\"\n"); put != nil || get == nil || !strings.HasPrefix(get.Error(), received) {
		t.Errorf("with one for answers: %v, %v", put, get)
	}
	value = bytes.Repeat([]byte("v"), 3<<19)
	if put, _ := ask(""); put == nil || !strings.Contains(put.Error(), "etcdserver: request is too large") {
		t.Errorf("what is too large for etcd: %v", put)
	}
}
