package conf

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"
	"time"

	"github.com/sharder/sharder/integration/leaks"
)

func TestMain(m *testing.M) { leaks.Main(m) }

// parse is Parse for a text that must be right.
func parse(t *testing.T, src string) *Config {
	t.Helper()
	c, err := Parse("", []byte(src))
	if err != nil {
		t.Fatal(err)
	}
	return c
}

func equal(t *testing.T, have, want any) {
	t.Helper()
	if !reflect.DeepEqual(have, want) {
		t.Errorf("have %+v\nwant %+v", have, want)
	}
}

func TestDefaultsAreThoseOfTheDocumentation(t *testing.T) {
	want := Config{
		Listen:          []string{"127.0.0.1:2379"},
		Members:         "sharders",
		Registration:    Registration{TTL: 15 * time.Second},
		DrainTimeout:    10 * time.Second,
		MaxRequestBytes: 1572864,
		HTTP:            HTTP{Gateway: true},
		GRPC:            GRPC{MaxConcurrentStreams: 1<<32 - 1, KeepAliveMinTime: 5 * time.Second, KeepAliveInterval: 2 * time.Hour, KeepAliveTimeout: 20 * time.Second},
		Limits:          Limits{Requests: 2048, RequestsWaiting: 8192, PerShard: 512, PerShardWaiting: 4096, StreamPage: 1 << 20},
		Watch:           Watch{Queue: 128, QueueBytes: 4 << 20, HistoryBytes: 512 << 10, CatchUps: 16, ProgressInterval: 5 * time.Second},
		Lease:           Lease{KeepAliveStreams: 4},
		Cache:           Cache{Bytes: 64 << 20, MaxAge: time.Second, AuthInterval: time.Second},
	}
	equal(t, *Default(), want)
	want.Shards = []Shard{{Name: "a", Endpoints: []string{"10.0.0.1:2379"}, HealthInterval: time.Second, Timeout: 30 * time.Second, Upstream: Upstream{
		DiscoveryInterval: 30 * time.Second, KeepAliveTime: 10 * time.Second, KeepAliveTimeout: 3 * time.Second, MaxSendBytes: 2 << 30, MaxRecvBytes: 2 << 30,
	}}}
	want.Routes = []Route{{Key: []byte{}, Shards: []string{"a"}}}
	equal(t, *parse(t, `shards.a.endpoints = ["10.0.0.1:2379"]`), want)
}

func TestEveryKeyReachesItsField(t *testing.T) {
	c := parse(t, `
listen = [":1", "[::1]:2"]
advertise = ["h:3", "https://[::1]:4"]
members = "sharders"
data_dir = "../d"
drain_timeout = "1m30s"
max_request_bytes = 2048
[tls]
auto = true
auto_validity = "48h"
min_version = "1.2"
max_version = "1.3"
[http]
gateway = false
pprof = true
[grpc]
max_concurrent_streams = 21
keepalive_min_time = "22s"
keepalive_interval = "23s"
keepalive_timeout = "24s"
keepalive_without_calls = true
log_requests = true
[limits]
requests = 1
requests_waiting = 2
per_shard = 3
per_shard_waiting = 4
stream_page = "5KiB"
[watch]
queue = 6
queue_bytes = "7MiB"
history_bytes = "8KiB"
catch_ups = 9
progress_interval = "10s"
[lease]
keep_alive_streams = 11
[registration]
prefix = "p"
ttl = "21s"
[order]
endpoints = ["order.example.com:2379"]
username = "order"
password_file = "pw-order"
timeout = "15s"
first_revision = 1600
auto_compaction_mode = "revision"
auto_compaction_retention = "17"
commit_interval = "18ms"
checkpoint_entries = 19
batch_items = 20
[shards.z]
endpoints = ["https://etcd-1.example.com:2379"]
username = "root"
password_file = "pw"
tls = { ca = "ca", cert = "crt", key = "key", server_name = "sn", insecure_skip_verify = true }
health_interval = "12s"
timeout = "13s"
auto_sync_interval = "31s"
keepalive_time = "32s"
keepalive_timeout = "33s"
keepalive_without_calls = true
max_send_bytes = "34KiB"
max_recv_bytes = "35KiB"
[shards.b]
discovery_srv = "example.com"
discovery_srv_name = "n"
insecure_discovery = true
discovery_interval = "36s"
auto_sync_interval = "0s"
keepalive_time = "0s"
[shards.a]
embedded = true
listen = "127.0.0.1:14"
[routes]
"" = "z"
"a" = { hash = ["a", "z"] }
"b" = "b"
`)
	equal(t, *c, Config{
		Listen: []string{":1", "[::1]:2"}, Advertise: []string{"h:3", "https://[::1]:4"}, Members: "sharders",
		Registration: Registration{Prefix: "p", TTL: 21 * time.Second}, DataDir: "../d", DrainTimeout: 90 * time.Second, MaxRequestBytes: 2 * KiB,
		TLS:  &ServerTLS{Auto: true, AutoValidity: 48 * time.Hour, MinVersion: "1.2", MaxVersion: "1.3"},
		HTTP: HTTP{Gateway: false, PProf: true},
		GRPC: GRPC{
			MaxConcurrentStreams: 21, KeepAliveMinTime: 22 * time.Second, KeepAliveWithoutCalls: true, LogRequests: true,
			KeepAliveInterval: 23 * time.Second, KeepAliveTimeout: 24 * time.Second,
		},
		Limits: Limits{1, 2, 3, 4, 5 * KiB},
		Watch:  Watch{6, 7 * MiB, 8 * KiB, 9, 10 * time.Second},
		Lease:  Lease{11},
		Cache:  Cache{64 * MiB, time.Second, time.Second}, // of no meaning here, see TestTheKeysOfTheCacheReachTheirFields
		Shards: []Shard{
			{
				Name: "z", Endpoints: []string{"https://etcd-1.example.com:2379"},
				TLS: TLS{CA: "ca", Cert: "crt", Key: "key", ServerName: "sn", InsecureSkipVerify: true}, Username: "root", PasswordFile: "pw",
				HealthInterval: 12 * time.Second, Timeout: 13 * time.Second,
				Upstream: Upstream{
					DiscoveryInterval: 30 * time.Second, AutoSyncInterval: 31 * time.Second, KeepAliveTime: 32 * time.Second,
					KeepAliveTimeout: 33 * time.Second, KeepAliveWithoutCalls: true, MaxSendBytes: 34 * KiB, MaxRecvBytes: 35 * KiB,
				},
			},
			{
				Name: "b", HealthInterval: time.Second, Timeout: 30 * time.Second,
				Upstream: Upstream{
					DiscoverySRV: "example.com", DiscoveryName: "n", InsecureDiscovery: true, DiscoveryInterval: 36 * time.Second,
					KeepAliveTimeout: 3 * time.Second, MaxSendBytes: MaxMessage, MaxRecvBytes: MaxMessage,
				},
			},
			{Name: "a", Embedded: true, Listen: "127.0.0.1:14", HealthInterval: time.Second, Timeout: 30 * time.Second, Upstream: defaultUpstream()},
		},
		Routes: []Route{
			{Key: []byte{}, Shards: []string{"z"}, Line: 75},
			{Key: []byte("a"), Shards: []string{"a", "z"}, Hash: true, Line: 76},
			{Key: []byte("b"), Shards: []string{"b"}, Line: 77},
		},
		Order: &Order{
			Shard: Shard{
				Name: "[order]", Endpoints: []string{"order.example.com:2379"},
				Username: "order", PasswordFile: "pw-order", HealthInterval: time.Second, Timeout: 15 * time.Second, Upstream: defaultUpstream(),
			},
			FirstRevision: 1600, AutoCompaction: AutoCompaction{Revisions: 17},
			CommitInterval: 18 * time.Millisecond, CheckpointEntries: 19, BatchItems: 20,
		},
	})
}

func TestTheKeysOfTheCacheReachTheirFields(t *testing.T) {
	const shard = "\n[shards.a]\nendpoints = [\"h:1\"]\n"
	c := parse(t, "[cache]\nbytes = \"1MiB\"\nmax_age = \"2s\"\nauth_interval = \"3m\""+shard)
	equal(t, c.Cache, Cache{MiB, 2 * time.Second, 3 * time.Minute})
	for _, off := range []string{`"0"`, "0"} {
		equal(t, parse(t, "cache.bytes = "+off+shard).Cache.Bytes, Size(0))
	}
}

func TestShardsStayInTheOrderOfTheFile(t *testing.T) {
	names := []string{"m", "z", "a", "k2", "K", "0", "_", "-"}
	src := "data_dir = \"d\"\n"
	for _, n := range names {
		src += fmt.Sprintf("[shards.%s]\nembedded = true\n", n)
	}
	src += "[routes]\n\"\" = { hash = [\"" + strings.Join(names, `", "`) + "\"] }\n"
	for range 20 { // the order of a map would show by now
		c := parse(t, src)
		for i, n := range names {
			if c.Shards[i].Name != n {
				t.Fatalf("shard %d is %q, want %q", i, c.Shards[i].Name, n)
			}
		}
	}
}

func TestRoutesAreSortedByTheirBytes(t *testing.T) {
	c := parse(t, `
data_dir = "d"
shards.a.embedded = true
[routes]
"ü" = "a"
"hex:ff00" = "a"
"b" = "a"
"hex:FF" = "a"
"" = "a"
"a/b.c" = "a"
"hex:6865783a" = "a"
`)
	var have []string
	for _, r := range c.Routes {
		have = append(have, fmt.Sprintf("%d %q", r.Line, r.Key))
	}
	equal(t, have, []string{`9 ""`, `10 "a/b.c"`, `7 "b"`, `11 "hex:"`, `5 "ü"`, `8 "\xff"`, `6 "\xff\x00"`})
}

func TestLoadNamesTheFileAsItWasGiven(t *testing.T) {
	dir := t.TempDir()
	good, bad := filepath.Join(dir, "good.toml"), filepath.Join(dir, "bad.toml")
	for file, src := range map[string]string{good: "shards.a.endpoints = [\"10.0.0.1:1\"]", bad: "\n\ncolour = 1\n[shards.a]\nendpoints = [\"10.0.0.1:1\"]"} {
		if err := os.WriteFile(file, []byte(src), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	if c, err := Load(good); err != nil || c.File != good {
		t.Errorf("have %+v, %v", c, err)
	}
	_, err := Load(bad)
	var one *Error
	if !errors.As(err, &one) || one.File != bad || one.Line != 3 || one.Key != "colour" || !strings.HasPrefix(err.Error(), bad+":3: colour: ") {
		t.Errorf("have %v", err)
	}
	if _, err := Load(filepath.Join(dir, "none.toml")); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("want that there is no such file, have %v", err)
	}
}

func TestAFileThatIsNoConfigurationIsRefusedAtOnce(t *testing.T) {
	_, err := Parse("f", []byte(strings.Repeat("# \n", maxFile/3+1)))
	checkErrors(t, err)
	_, err = Parse("f", []byte(strings.Repeat("[", maxFile)))
	checkErrors(t, err)
	if len(err.Error()) > 200 {
		t.Errorf("the error has %d bytes", len(err.Error()))
	}
}

func TestAByteOrderMarkAndCarriageReturnsDoNotMoveLines(t *testing.T) {
	_, err := Parse("f", []byte("\xef\xbb\xbf[shards.a]\r\nx = 1\r\nendpoints = [\r\n\"10.0.0.1:1\"]\r\n[y]\r\n"))
	equal(t, strings.Split(err.Error(), "\n"), []string{
		`f:2: shards.a.x: no such key; the keys here are auto_sync_interval, discovery_interval, discovery_srv, discovery_srv_name, embedded, endpoints, health_interval, insecure_discovery, keepalive_time, keepalive_timeout, keepalive_without_calls, listen, max_recv_bytes, max_send_bytes, password_file, timeout, tls, username`,
		`f:5: y: no table that this version knows is called "y"; the tables are cache, gateways.NAME, grpc, http, lease, limits, order, registration, routes, shards.NAME, tls, watch`,
	})
	_, err = Parse("", []byte("a = 1 1\r\n"))
	if !strings.HasPrefix(err.Error(), "configuration:1: ") || strings.Contains(err.Error(), "\r") {
		t.Errorf("have %q", err)
	}
}

func TestTLSIsEmptyUntilSomethingIsSet(t *testing.T) {
	if !(TLS{}).Empty() || (TLS{ServerName: "x"}).Empty() {
		t.Error("Empty does not say whether something is set")
	}
}

func TestAddressesThatAreOnePlaceAreFound(t *testing.T) {
	at := func(text string, local bool) claim {
		a, what, _ := parseAddress(text, true)
		if what != "" {
			t.Fatal(what)
		}
		return claim{address: a, local: local}
	}
	const mine, theirs = true, false
	for _, c := range []struct {
		a     string
		local bool
		b     string
		other bool
		same  bool
	}{
		{"127.0.0.1:1", mine, "localhost:1", theirs, true},
		{"127.0.0.1:1", mine, "127.0.0.1:2", theirs, false},
		{"127.0.0.1:0", mine, "127.0.0.1:0", mine, false},
		{":1", mine, "127.0.0.1:1", theirs, true},
		{":1", mine, "[::]:1", mine, true},
		{":1", mine, "10.0.0.1:1", mine, true},
		{":1", mine, "10.0.0.1:1", theirs, false}, // may be another machine
		{"[::ffff:10.0.0.1]:1", theirs, "10.0.0.1:1", theirs, true},
		{"A.example.com:1", theirs, "a.example.com.:1", theirs, true},
		{"a:1", theirs, "b:1", theirs, false},
	} {
		if a, b := at(c.a, c.local), at(c.b, c.other); a.same(b) != c.same || b.same(a) != c.same {
			t.Errorf("%s and %s: want same to be %v", c.a, c.b, c.same)
		}
	}
}

func TestANameIsOnlySuggestedWhenItIsNear(t *testing.T) {
	names := []string{"listen", "limits", "watch", "ca", "key"}
	for have, want := range map[string]string{
		"listne": "listen", "Listen": "listen", "lisen": "listen", "limit": "limits", "wacht": "watch", "kye": "key",
		"colour": "", "x": "", "": "", strings.Repeat("listen", 20): "",
	} {
		if got := Nearest(have, names); got != want {
			t.Errorf("%q: have %q, want %q", have, got, want)
		}
	}
}
