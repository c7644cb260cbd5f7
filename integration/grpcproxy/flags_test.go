package grpcproxy_test

import (
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/sharder/sharder/conf"
	"github.com/sharder/sharder/integration/harness"
	"github.com/sharder/sharder/integration/ports"
)

// option is a flag of grpc-proxy: a value for it, flags that have to be there, too, and the line of
// the configuration that it becomes. If it is refused, why holds what the refusal says.
type option struct {
	name, value string
	with        []string
	line        string
	why         string
}

var (
	keyPair  = []string{"--cert-file", "c.pem", "--key-file", "k.pem"}
	discover = []string{"--discovery-srv", "example.com"}
)

// options are all of grpc-proxy's.
var options = []option{
	{name: "listen-addr", value: "127.0.0.1:7", line: `listen = ["127.0.0.1:7"]`},
	{name: "endpoints", value: "127.0.0.1:8,http://127.0.0.1:9/", line: `endpoints = ["127.0.0.1:8", "http://127.0.0.1:9"]`},
	{name: "endpoints-auto-sync-interval", value: "30s", line: `auto_sync_interval = "30s"`},
	{name: "discovery-srv", value: "example.com", line: `discovery_srv = "example.com"`},
	{name: "discovery-srv-name", value: "blue", with: discover, line: `discovery_srv_name = "blue"`},
	{name: "insecure-discovery", with: discover, line: `insecure_discovery = true`},
	{name: "dial-keepalive-time", value: "20s", line: `keepalive_time = "20s"`},
	{name: "dial-keepalive-timeout", value: "4s", line: `keepalive_timeout = "4s"`},
	{name: "permit-without-stream", line: `keepalive_without_calls = true`},
	{name: "advertise-client-url", value: "127.0.0.1:7", line: `advertise = ["127.0.0.1:7"]`},
	{name: "resolver-prefix", value: "p", with: []string{"--resolver-ttl", "9"}, line: `prefix = "p"`},
	{name: "resolver-ttl", value: "9", with: []string{"--resolver-prefix", "p"}, line: `ttl = "9s"`},
	{name: "namespace", value: "n/", line: `namespace = "n/"`},
	{name: "data-dir", value: "d", with: []string{"--auto-tls"}, line: `data_dir = "d"`},
	{name: "max-send-bytes", value: "20971520", line: `max_send_bytes = `},
	{name: "max-recv-bytes", value: "20971520", line: `max_recv_bytes = `},
	{name: "max-concurrent-streams", value: "9", line: `max_concurrent_streams = 9`},
	{name: "grpc-keepalive-min-time", value: "1s", line: `keepalive_min_time = "1s"`},
	{name: "grpc-keepalive-interval", value: "1m", line: `keepalive_interval = "1m0s"`},
	{name: "grpc-keepalive-timeout", value: "7s", line: `keepalive_timeout = "7s"`},
	{name: "cert", value: "c.pem", with: []string{"--key", "k.pem"}, line: `tls.cert = "c.pem"`},
	{name: "key", value: "k.pem", with: []string{"--cert", "c.pem"}, line: `tls.key = "k.pem"`},
	{name: "cacert", value: "a.pem", line: `tls.ca = "a.pem"`},
	{name: "insecure-skip-tls-verify", line: `tls.insecure_skip_verify = true`},
	{name: "cert-file", value: "c.pem", with: keyPair[2:], line: `cert = "c.pem"`},
	{name: "key-file", value: "k.pem", with: keyPair[:2], line: `key = "k.pem"`},
	{name: "trusted-ca-file", value: "a.pem", with: keyPair, line: `client_ca = "a.pem"`},
	{name: "client-crl-file", value: "r.pem", with: append([]string{"--trusted-ca-file", "a.pem"}, keyPair...), line: `crl = "r.pem"`},
	{name: "listen-cipher-suites", value: "TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256", with: keyPair, line: `cipher_suites = ["TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256"]`},
	{name: "tls-min-version", value: "TLS1.3", with: keyPair, line: `min_version = "1.3"`},
	{name: "tls-max-version", value: "TLS1.2", with: keyPair, line: `max_version = "1.2"`},
	{name: "auto-tls", line: `auto = true`},
	{name: "self-signed-cert-validity", value: "2", with: []string{"--auto-tls"}, line: `auto_validity = "17520h"`},
	{name: "metrics-addr", value: "http://127.0.0.1:6", line: `metrics = "http://127.0.0.1:6"`},
	{name: "enable-pprof", line: `pprof = true`},
	{name: "experimental-serializable-ordering", line: `serializable_ordering = true`},
	{name: "experimental-leasing-prefix", value: "l/", why: "not supported: it answers linearizable reads from memory"},
	{name: "experimental-enable-grpc-logging", line: `log_requests = true`},
	{name: "debug"},
}

// given are the flags with which the flag is tried.
func (f option) given() []string {
	args := []string{"--" + f.name}
	if f.value != "" {
		args = append(args, f.value)
	}
	return append(args, f.with...)
}

// offered finds the flags that a program offers. etcd's has two dashes.
var offered = regexp.MustCompile(`(?m)^ +(?:-h, )?--?([a-z][a-z-]+)`)

// Every flag that etcd's own binary offers is known, and no other is in the table above. Each is a
// line of the configuration that it stands for, which conf takes, or it is refused by its name and
// with the reason; and docs/compatibility.md has a row for it.
func TestEveryFlagOfGRPCProxyIsHonouredOrRefusedByName(t *testing.T) {
	t.Parallel()
	help := harness.Command(t, program(t, etcdsProxy), "grpc-proxy", "start", "--help")
	var theirs, known []string
	for _, m := range offered.FindAllStringSubmatch(help.Stdout, -1) {
		if m[1] != "help" {
			theirs = append(theirs, m[1])
		}
	}
	for _, f := range options {
		known = append(known, f.name)
	}
	slices.Sort(theirs)
	slices.Sort(known)
	if !slices.Equal(theirs, known) || len(theirs) != 39 {
		t.Fatalf("etcd's binary has\n%q\nknown here are\n%q", theirs, known)
	}
	root, err := harness.Root()
	if err != nil {
		t.Fatal(err)
	}
	page, err := os.ReadFile(filepath.Join(root, "docs", "compatibility.md"))
	if err != nil {
		t.Fatal(err)
	}
	ours := harness.Binary(t, harness.SharderPackage)
	for _, f := range options {
		if !strings.Contains(string(page), "\n| `--"+f.name+"` | ") {
			t.Errorf("docs/compatibility.md has no row for --%s", f.name)
		}
		t.Run(f.name, func(t *testing.T) {
			t.Parallel()
			res := harness.Command(t, append([]string{ours, "grpc-proxy", "start", "--print-config"}, f.given()...)...)
			if f.why != "" {
				if res.Code != 2 || !strings.Contains(res.Stderr, "--"+f.name+": ") || !strings.Contains(res.Stderr, f.why) {
					t.Errorf("%+v", res)
				}
				return
			}
			if res.Code != 0 || !strings.Contains(res.Stdout, "\n"+f.line) && !strings.HasPrefix(res.Stdout, f.line) {
				t.Fatalf("%q gives no line %q:\n%s%s", f.given(), f.line, res.Stdout, res.Stderr)
			}
			if _, err := conf.Parse("printed", []byte(res.Stdout)); err != nil {
				t.Errorf("what it prints is no configuration: %v\n%s", err, res.Stdout)
			}
		})
	}
}

// Scripts write flags in every way that etcd takes them.
func TestFlagsAreTakenInEveryForm(t *testing.T) {
	t.Parallel()
	ours := harness.Binary(t, harness.SharderPackage)
	var outputs []string
	for _, args := range [][]string{
		{"--endpoints", "127.0.0.1:8,127.0.0.1:9", "--enable-pprof", "--listen-addr", "127.0.0.1:7"},
		{"--endpoints=127.0.0.1:8,127.0.0.1:9", "--enable-pprof=true", "--listen-addr=127.0.0.1:7"},
		{"--endpoints", "127.0.0.1:8", "--endpoints", "127.0.0.1:9", "--enable-pprof", "--listen-addr", "127.0.0.1:7", "--debug=false"},
	} {
		res := harness.Command(t, append([]string{ours, "grpc-proxy", "start", "--print-config"}, args...)...)
		if res.Code != 0 {
			t.Fatalf("%q: %s", args, res.Stderr)
		}
		outputs = append(outputs, res.Stdout)
	}
	if outputs[0] != outputs[1] || outputs[0] != outputs[2] {
		t.Errorf("they differ:\n%s", strings.Join(outputs, "---\n"))
	}
}

// --enable-pprof and --metrics-addr open what they say, and nothing is open without them.
func TestProfilesAndMetricsAreWhereTheFlagsSay(t *testing.T) {
	t.Parallel()
	metrics := ports.Of(t)
	with := open(t, sharder, &probe{flags: []string{"--enable-pprof", "--metrics-addr", "http://" + metrics}})
	without := open(t, sharder, &probe{})
	for url, want := range map[string]int{
		"http://" + with.addr + "/debug/pprof/":    200,
		"http://" + without.addr + "/debug/pprof/": 404,
		"http://" + with.addr + "/metrics":         200,
		"http://" + with.addr + "/proxy/metrics":   200,
		"http://" + with.addr + "/proxy/health":    200,
		"http://" + without.addr + "/health":       200,
		"http://" + metrics + "/metrics":           200,
		"http://" + metrics + "/proxy/metrics":     200,
		"http://" + metrics + "/health":            200,
		"http://" + metrics + "/debug/pprof/":      404,
	} {
		if code, _, err := get(url); err != nil || code != want {
			t.Errorf("%s: %d %v, want %d", url, code, err, want)
		}
	}
}

// What etcd takes for its default, or does not look at, is taken here, too: scripts and templates
// give all flags, whether they have a value or not.
func TestValuesThatMeanTheDefaultAreTaken(t *testing.T) {
	t.Parallel()
	ours := harness.Binary(t, harness.SharderPackage)
	start := func(args ...string) harness.Result {
		return harness.Command(t, append([]string{ours, "grpc-proxy", "start", "--print-config", "--listen-addr", "127.0.0.1:7"}, args...)...)
	}
	plain := start("--endpoints", "http://127.0.0.1:8")
	for _, args := range [][]string{
		{"--max-send-bytes", "0", "--max-recv-bytes", "-1"},
		{"--grpc-keepalive-timeout", "0", "--dial-keepalive-timeout", "0s", "--max-concurrent-streams", "0"},
		{"--metrics-addr", "", "--namespace", "", "--resolver-prefix", "", "--discovery-srv", "", "--tls-min-version", ""},
		{"--cert", "", "--key", "", "--cacert", "", "--cert-file", "", "--key-file", "", "--trusted-ca-file", "", "--client-crl-file", ""},
		{"--discovery-srv-name", "blue", "--insecure-discovery"},
		{"--endpoints", "http://127.0.0.1:8/v3,http://127.0.0.1:8/"},
	} {
		if res := start(append([]string{"--endpoints", "http://127.0.0.1:8"}, args...)...); res.Code != 0 || res.Stdout != plain.Stdout {
			t.Errorf("%q: %d\n%s%s\nwant\n%s", args, res.Code, res.Stdout, res.Stderr, plain.Stdout)
		}
	}
	auto := []string{"--auto-tls", "--endpoints", "127.0.0.1:8"}
	if have, want := start(append(auto, "--cert-file", "", "--key-file", "", "--tls-min-version", "")...), start(auto...); have.Code != 0 || have.Stdout != want.Stdout {
		t.Errorf("%+v\n%+v", have, want)
	}
	if res := start("--discovery-srv", "example.com", "--endpoints", "127.0.0.1:8"); res.Code != 0 || strings.Contains(res.Stdout, "endpoints") || !strings.Contains(res.Stdout, "discovery_srv") {
		t.Errorf("%+v", res)
	}
	most := start("--endpoints", "127.0.0.1:8", "--max-send-bytes", "2147483647", "--max-recv-bytes", "2147483647")
	if most.Code != 0 || !strings.Contains(most.Stdout, "max_request_bytes = 1073741824\n") {
		t.Errorf("%+v", most)
	}
	if _, err := conf.Parse("printed", []byte(most.Stdout)); err != nil {
		t.Error(err)
	}
}

// Help goes where etcd's goes, so that it can be searched.
func TestHelpGoesToStdout(t *testing.T) {
	t.Parallel()
	ours := harness.Binary(t, harness.SharderPackage)
	for _, args := range [][]string{{"grpc-proxy", "start", "--help"}, {"grpc-proxy", "--help"}, {"gateway", "start", "-h"}, {"gateway", "help"}} {
		res := harness.Command(t, append([]string{ours}, args...)...)
		if res.Code != 0 || res.Stderr != "" || !strings.Contains(res.Stdout, "sharder "+args[0]+" start") {
			t.Errorf("%q: %+v", args, res)
		}
		if args[1] == "start" && !strings.Contains(res.Stdout, "\n  --endpoints addresses\n") {
			t.Errorf("%q lists no --endpoints:\n%s", args, res.Stdout)
		}
	}
}
