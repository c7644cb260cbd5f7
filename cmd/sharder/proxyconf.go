package main

import (
	"errors"
	"fmt"
	"math"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/BurntSushi/toml"

	"github.com/sharder/sharder/conf"
)

// proxyShard is the name of the cluster behind the proxy.
const proxyShard = "etcd"

// proxyFile is what stands for a file in errors that no flag can be named in.
const proxyFile = "(flags)"

// largestRequest is what max_request_bytes may be, and less than what a flag may say.
const largestRequest = 1 << 30

// line is a line of the configuration that a flag stands for.
type line struct {
	flag, table, key string
	value            any
}

// lines are the flags as lines, in the order of the tables. A flag that was not given, or is
// empty, has none: its default is that of the configuration.
func (f *proxyFlags) lines() []line {
	var all []line
	table := ""
	always := func(name, key string, value any) { all = append(all, line{name, table, key, value}) }
	add := func(name, key string, value any) {
		if f.given[name] && value != "" {
			always(name, key, value)
		}
	}
	always("listen-addr", "listen", []string{f.listen})
	add("metrics-addr", "metrics", withoutPath(f.metrics))
	f.addMembers(add, always)
	if f.namespace != "" {
		add("namespace", "namespace", namespaceText(f.namespace))
	}
	if f.autoTLS && f.dataDir != "" { // empty keeps the certificate in memory
		always("data-dir", "data_dir", f.dataDir)
	}
	if f.maxSend > 1536<<10 {
		add("max-send-bytes", "max_request_bytes", min(f.maxSend, largestRequest))
	}
	add("experimental-serializable-ordering", "serializable_ordering", f.ordering)
	if f.prefix != "" {
		table = "registration"
		add("resolver-prefix", "prefix", f.prefix)
		add("resolver-ttl", "ttl", seconds(f.ttl))
	}
	table = "http"
	add("enable-pprof", "pprof", f.pprof)
	table = "grpc"
	f.addGRPC(add)
	table = "tls"
	f.addTLS(add, always)
	table = "shards." + proxyShard
	f.addUpstream(add, always)
	return all
}

// namespaceText is a prefix as a configuration has it, which is text: other bytes are in hexadecimal.
func namespaceText(prefix string) string {
	if utf8.ValidString(prefix) && !strings.HasPrefix(prefix, "hex:") && !strings.ContainsRune(prefix, 0) {
		return prefix
	}
	return fmt.Sprintf("hex:%x", prefix)
}

// seconds is a number of seconds as a configuration has it.
func seconds(n int) string { return (time.Duration(n) * time.Second).String() }

// addMembers says whom MemberList names. grpc-proxy's default is the address it listens on.
func (f *proxyFlags) addMembers(add, always func(name, key string, value any)) {
	switch {
	case !f.given["advertise-client-url"] && f.prefix != "" && !strings.HasPrefix(f.listen, ":"):
		// With the default on both sides that is what grpc-proxy registers; the configuration
		// would not take a loopback address for one.
		always("listen-addr", "advertise", []string{f.listen})
	case !f.given["advertise-client-url"]:
	case f.advertise == "":
		always("advertise-client-url", "members", "shard")
	default:
		add("advertise-client-url", "advertise", []string{withoutScheme(f.advertise)})
	}
}

// withoutScheme is an address without its scheme, which the listener's is.
func withoutScheme(url string) string {
	if _, rest, ok := strings.Cut(url, "://"); ok {
		url = rest
	}
	return strings.TrimSuffix(url, "/")
}

// withoutPath is a URL without what comes behind the host. grpc-proxy looks at none of that.
func withoutPath(url string) string {
	scheme, rest, ok := strings.Cut(url, "://")
	if s := strings.ToLower(scheme); !ok || s != "http" && s != "https" {
		return url
	}
	host, _, _ := strings.Cut(rest, "/")
	return scheme + "://" + host
}

func (f *proxyFlags) addGRPC(add func(name, key string, value any)) {
	if f.streams > 0 && f.streams < math.MaxUint32 {
		add("max-concurrent-streams", "max_concurrent_streams", int64(f.streams))
	}
	add("grpc-keepalive-min-time", "keepalive_min_time", f.minTime.String())
	add("grpc-keepalive-interval", "keepalive_interval", f.interval.String())
	if f.timeout != 0 { // gRPC's word for its default
		add("grpc-keepalive-timeout", "keepalive_timeout", f.timeout.String())
	}
	add("experimental-enable-grpc-logging", "log_requests", f.logging)
}

// secure tells whether clients come over TLS.
func (f *proxyFlags) secure() bool {
	return f.certFile != "" || f.keyFile != "" || f.trustedCA != "" || f.autoTLS
}

func (f *proxyFlags) addTLS(add, always func(name, key string, value any)) {
	if !f.secure() {
		return // without a certificate the others say nothing, as with grpc-proxy
	}
	add("cert-file", "cert", f.certFile)
	add("key-file", "key", f.keyFile)
	add("trusted-ca-file", "client_ca", f.trustedCA)
	if f.trustedCA != "" {
		add("client-crl-file", "crl", f.crl)
	}
	if f.autoTLS && f.certFile == "" {
		always("auto-tls", "auto", true)
		add("self-signed-cert-validity", "auto_validity", fmt.Sprintf("%dh", f.validity*365*24))
	}
	add("tls-min-version", "min_version", strings.TrimPrefix(f.minVersion, "TLS"))
	if f.maxVersion != "" {
		add("tls-max-version", "max_version", strings.TrimPrefix(f.maxVersion, "TLS"))
	}
	if len(f.suites) > 0 {
		add("listen-cipher-suites", "cipher_suites", []string(f.suites))
	}
}

func (f *proxyFlags) addUpstream(add, always func(name, key string, value any)) {
	if f.srv == "" {
		always("endpoints", "endpoints", []string(f.endpoints))
	} else {
		add("discovery-srv", "discovery_srv", f.srv)
		add("discovery-srv-name", "discovery_srv_name", f.srvName)
		add("insecure-discovery", "insecure_discovery", f.insecureDiscovery)
	}
	add("endpoints-auto-sync-interval", "auto_sync_interval", f.autoSync.String())
	add("dial-keepalive-time", "keepalive_time", f.dialKeepAlive.String())
	if f.dialKeepAliveTimeout != 0 {
		add("dial-keepalive-timeout", "keepalive_timeout", f.dialKeepAliveTimeout.String())
	}
	add("permit-without-stream", "keepalive_without_calls", f.permitWithoutStream)
	for _, x := range []struct {
		name, key string
		bytes     int
	}{{"max-send-bytes", "max_send_bytes", f.maxSend}, {"max-recv-bytes", "max_recv_bytes", f.maxReceive}} {
		if x.bytes > 0 { // as with grpc-proxy, for which the others mean the default
			add(x.name, x.key, min(x.bytes, math.MaxInt32))
		}
	}
	if f.inTheClear() {
		return
	}
	for _, x := range []struct{ name, key, value string }{{"cacert", "ca", f.ca}, {"cert", "cert", f.cert}, {"key", "key", f.key}} {
		if x.value != "" {
			add(x.name, "tls."+x.key, x.value)
		}
	}
	if f.skipVerify {
		add("insecure-skip-tls-verify", "tls.insecure_skip_verify", true)
	}
}

// idle are the flags that are given and say nothing, and why. grpc-proxy takes them so, too, and
// harnesses rely on it: they give all files, whatever clients and members speak.
func (f *proxyFlags) idle() (notes []string) {
	if f.given["client-crl-file"] && f.trustedCA == "" {
		notes = append(notes, "--client-crl-file says nothing: clients need no certificate without --trusted-ca-file")
	}
	for _, name := range []string{"cert", "key", "cacert", "insecure-skip-tls-verify"} {
		if f.given[name] && f.inTheClear() {
			notes = append(notes, "--"+name+" says nothing: all --endpoints begin with http:// or unix://")
		}
	}
	return append(notes, f.idleDiscovery()...)
}

func (f *proxyFlags) idleDiscovery() (notes []string) {
	if f.srv != "" {
		if f.given["endpoints"] {
			notes = append(notes, "--endpoints says nothing: the members are found by --discovery-srv")
		}
		return notes
	}
	for _, name := range []string{"discovery-srv-name", "insecure-discovery"} {
		if f.given[name] {
			notes = append(notes, "--"+name+" says nothing: the members are those of --endpoints")
		}
	}
	return notes
}

// inTheClear tells whether the endpoints say that all members are spoken to without TLS.
func (f *proxyFlags) inTheClear() bool {
	if f.srv != "" {
		return false
	}
	for _, e := range f.endpoints {
		if !strings.HasPrefix(e, "http://") && !strings.HasPrefix(e, "unix://") {
			return false
		}
	}
	return len(f.endpoints) > 0
}

// text is a configuration of lines, and says which flag each line of it comes from.
func text(all []line) (src string, flags []string) {
	var b strings.Builder
	table := ""
	for _, l := range all {
		if l.table != table {
			table = l.table
			fmt.Fprintf(&b, "\n[%s]\n", table)
			flags = append(flags, "", l.flag)
		}
		value := strings.Builder{}
		// One key with a value of a simple kind: there is nothing in it that can't be encoded.
		_ = toml.NewEncoder(&value).Encode(map[string]any{"v": l.value})
		fmt.Fprintf(&b, "%s =%s", l.key, strings.TrimPrefix(value.String(), "v ="))
		flags = append(flags, l.flag)
	}
	return b.String(), flags
}

// config is the configuration that the flags stand for, and its text. What is wrong with it is
// told by the names of the flags.
func (f *proxyFlags) config() (*conf.Config, string, error) {
	src, flags := text(f.lines())
	cfg, err := conf.Parse(proxyFile, []byte(src))
	var wrong conf.Errors
	if !errors.As(err, &wrong) {
		return cfg, src, err
	}
	var errs []error
	for _, e := range wrong {
		name := ""
		if i := e.Line - 1; i < len(flags) && flags[i] != "" {
			name = "--" + flags[i] + ": "
		}
		errs = append(errs, fmt.Errorf("%s%s; %s (%s in a file)", name, e.What, e.Remedy, e.Key))
	}
	return nil, src, errors.Join(errs...)
}
