package main

import (
	"errors"
	"flag"
	"fmt"
	"io"
	"math"
	"net"
	"slices"
	"strings"
	"time"
)

// proxyFlags are those of etcd grpc-proxy, with its defaults where they make a difference. What
// they mean is written as a configuration (proxyconf.go): a flag does what its key does.
type proxyFlags struct {
	*flag.FlagSet
	given map[string]bool // by the caller

	listen, metrics                     string
	endpoints                           list
	autoSync                            time.Duration
	srv, srvName                        string
	insecureDiscovery                   bool
	dialKeepAlive, dialKeepAliveTimeout time.Duration
	permitWithoutStream                 bool
	advertise, prefix                   string
	ttl                                 int
	namespace, dataDir                  string
	pprof                               bool
	maxSend, maxReceive                 int
	minTime, interval, timeout          time.Duration
	streams                             uint
	cert, key, ca                       string
	skipVerify                          bool
	certFile, keyFile, trustedCA, crl   string
	suites                              list
	autoTLS                             bool
	validity                            uint
	minVersion, maxVersion              string
	ordering, logging, debug            bool
	leasing                             string
	printConfig                         bool
}

// list is a flag that may be given several times, each with several values.
type list []string

// String implements flag.Value.
func (l *list) String() string { return strings.Join(*l, ",") }

// Set implements flag.Value.
func (l *list) Set(text string) error {
	for _, one := range strings.Split(text, ",") {
		if one = strings.TrimSpace(one); one != "" {
			*l = append(*l, one)
		}
	}
	return nil
}

// each is the list as URLs of places: each once, without what comes behind the host, which etcd
// does not look at.
func (l list) each() list {
	var all list
	for _, one := range l {
		if one = withoutPath(one); !slices.Contains(all, one) {
			all = append(all, one)
		}
	}
	return all
}

// newProxyFlags makes flags whose help goes to stdout.
func newProxyFlags(stdout io.Writer) *proxyFlags {
	f := &proxyFlags{FlagSet: flag.NewFlagSet("sharder grpc-proxy start", flag.ContinueOnError), given: map[string]bool{}}
	f.SetOutput(stdout)
	f.addressFlags()
	f.upstreamFlags()
	f.clientFlags()
	f.BoolVar(&f.ordering, "experimental-serializable-ordering", false, "serializable reads never go back behind what a client may have seen, whichever member answers")
	f.StringVar(&f.leasing, "experimental-leasing-prefix", "", "refused: it makes linearizable reads stale when somebody writes past the proxy")
	f.BoolVar(&f.logging, "experimental-enable-grpc-logging", false, "log every request: who, what, how long, how it ended; no keys, no values, no passwords")
	f.BoolVar(&f.debug, "debug", false, "log what is normal too")
	f.BoolVar(&f.printConfig, "print-config", false, "print the configuration that these flags stand for, and exit")
	return f
}

func (f *proxyFlags) addressFlags() {
	f.StringVar(&f.listen, "listen-addr", "127.0.0.1:23790", "listen `address`")
	f.StringVar(&f.metrics, "metrics-addr", "", "one more `URL` for /metrics and /health, https:// with the certificate and the rules of the client port")
	f.StringVar(&f.advertise, "advertise-client-url", "127.0.0.1:23790", "the `address` that clients are told of by MemberList, and that is registered; empty passes the real members on")
	f.StringVar(&f.prefix, "resolver-prefix", "", "register below this `prefix`, which all proxies of the cluster share")
	f.IntVar(&f.ttl, "resolver-ttl", 0, "time to live of the registration in `seconds`")
	f.StringVar(&f.namespace, "namespace", "", "`prefix` of all keys of clients")
	f.BoolVar(&f.pprof, "enable-pprof", false, "serve /debug/pprof/ on the client port")
	f.StringVar(&f.dataDir, "data-dir", "default.proxy", "`directory` for the generated certificate")
}

func (f *proxyFlags) upstreamFlags() {
	f.Var(&f.endpoints, "endpoints", "`addresses` of the members, separated by commas (default 127.0.0.1:2379)")
	f.DurationVar(&f.autoSync, "endpoints-auto-sync-interval", 0, "how often the members are asked who they are; 0 is never")
	f.StringVar(&f.srv, "discovery-srv", "", "find the members by the SRV records of this `domain`")
	f.StringVar(&f.srvName, "discovery-srv-name", "", "the `name` of the cluster in the records")
	f.BoolVar(&f.insecureDiscovery, "insecure-discovery", false, "use members that are found without a certificate for the domain")
	f.DurationVar(&f.dialKeepAlive, "dial-keepalive-time", 0, "how often a silent member is pinged (default 10s)")
	f.DurationVar(&f.dialKeepAliveTimeout, "dial-keepalive-timeout", 0, "how long a member may take to answer a ping (default 3s)")
	f.BoolVar(&f.permitWithoutStream, "permit-without-stream", false, "ping members that nothing is asked of, too")
	f.IntVar(&f.maxSend, "max-send-bytes", 1536<<10, "largest request to a member in `bytes`")
	f.IntVar(&f.maxReceive, "max-recv-bytes", math.MaxInt32, "largest answer of a member in `bytes`")
	f.StringVar(&f.cert, "cert", "", "`file` of the proxy's certificate towards members")
	f.StringVar(&f.key, "key", "", "`file` of its key")
	f.StringVar(&f.ca, "cacert", "", "`file` of the certificates that members are checked against")
	f.BoolVar(&f.skipVerify, "insecure-skip-tls-verify", false, "don't check the certificates of members (for tests)")
}

func (f *proxyFlags) clientFlags() {
	f.StringVar(&f.certFile, "cert-file", "", "`file` of the proxy's certificate towards clients")
	f.StringVar(&f.keyFile, "key-file", "", "`file` of its key")
	f.StringVar(&f.trustedCA, "trusted-ca-file", "", "`file` of the certificates that clients must prove theirs by")
	f.StringVar(&f.crl, "client-crl-file", "", "`file` of the client certificates that are revoked")
	f.Var(&f.suites, "listen-cipher-suites", "the cipher `suites` of TLS 1.2 for clients, separated by commas")
	f.BoolVar(&f.autoTLS, "auto-tls", false, "serve TLS with a certificate made at start")
	f.UintVar(&f.validity, "self-signed-cert-validity", 1, "how long that is valid, in `years`")
	f.StringVar(&f.minVersion, "tls-min-version", "TLS1.2", "least `version` of TLS for clients: TLS1.2, TLS1.3")
	f.StringVar(&f.maxVersion, "tls-max-version", "", "greatest `version` of TLS for clients: TLS1.2, TLS1.3")
	f.DurationVar(&f.minTime, "grpc-keepalive-min-time", 5*time.Second, "clients that ping more often are sent away")
	f.DurationVar(&f.interval, "grpc-keepalive-interval", 2*time.Hour, "how often a silent client is pinged; 0 is never")
	f.DurationVar(&f.timeout, "grpc-keepalive-timeout", 20*time.Second, "how long a client may take to answer a ping")
	f.UintVar(&f.streams, "max-concurrent-streams", math.MaxUint32, "requests and streams that a client may have open on a connection")
}

// parse reads the flags. What they mean together is checked with the configuration.
func (f *proxyFlags) parse(args []string) error {
	if err := parseEtcdFlags(f.FlagSet, args); err != nil {
		return err
	}
	f.Visit(func(x *flag.Flag) { f.given[x.Name] = true })
	if !f.given["endpoints"] {
		f.endpoints = list{"127.0.0.1:2379"}
	}
	f.endpoints = f.endpoints.each()
	return f.check()
}

// check finds what no key of a configuration could say.
func (f *proxyFlags) check() error {
	var errs []error
	wrong := func(name, format string, args ...any) {
		errs = append(errs, fmt.Errorf("--%s: "+format, append([]any{name}, args...)...))
	}
	if f.leasing != "" {
		wrong("experimental-leasing-prefix", "not supported: it answers linearizable reads from memory, which are stale as soon as anybody writes without the same prefix. "+
			"Take the flag out; serializable reads are served from a cache that watches what it holds")
	}
	if len(f.endpoints) == 0 && f.srv == "" {
		wrong("endpoints", "there is none; give the addresses of the members, or take the flag out for 127.0.0.1:2379")
	}
	if f.streams > math.MaxUint32 {
		wrong("max-concurrent-streams", "%d is too many; %d is as many as a client likes", f.streams, uint32(math.MaxUint32))
	}
	f.checkTLS(wrong)
	switch {
	case f.prefix != "" && f.ttl < 1:
		wrong("resolver-ttl", "%d is no time to live for what --resolver-prefix registers; write the seconds, such as 60", f.ttl)
	case f.prefix == "" && f.ttl > 0:
		wrong("resolver-prefix", "nothing is registered without it; give it, or take --resolver-ttl out")
	case f.prefix != "" && f.advertise == "":
		wrong("advertise-client-url", "there is no address to register; give the one at which clients reach this proxy")
	case f.prefix != "" && !f.given["advertise-client-url"] && anyHost(f.listen):
		wrong("advertise-client-url", "there is no address to register, since %s is another place on each machine; give the one at which clients reach this proxy", f.listen)
	}
	return errors.Join(errs...)
}

// checkTLS checks what grpc-proxy checks, whether there is a certificate or not, and that one is
// there for whoever needs it.
func (f *proxyFlags) checkTLS(wrong func(name, format string, args ...any)) {
	for _, v := range [][2]string{{"tls-min-version", f.minVersion}, {"tls-max-version", f.maxVersion}} {
		if v[1] != "" && v[1] != "TLS1.2" && v[1] != "TLS1.3" {
			wrong(v[0], "%q is none of TLS1.2, TLS1.3", v[1])
		}
	}
	if f.maxVersion != "" && f.maxVersion < f.minVersion {
		wrong("tls-max-version", "no version is left, since --tls-min-version is %s", f.minVersion)
	}
	if f.minVersion == "TLS1.3" && len(f.suites) > 0 {
		wrong("listen-cipher-suites", "TLS1.3 has its own; take it out, or --tls-min-version TLS1.3")
	}
	if f.autoTLS && f.validity == 0 {
		wrong("self-signed-cert-validity", "it is at least a year")
	}
	if f.trustedCA != "" && f.certFile == "" && f.keyFile == "" && !f.autoTLS {
		wrong("trusted-ca-file", "there is no certificate to show to clients; give --cert-file and --key-file, or --auto-tls")
	}
	if strings.HasPrefix(strings.ToLower(f.metrics), "https://") && !f.secure() {
		wrong("metrics-addr", "%q needs a certificate; give --cert-file and --key-file, or --auto-tls", f.metrics)
	}
	for _, p := range [][4]string{{"cert-file", f.certFile, "key-file", f.keyFile}, {"cert", f.cert, "key", f.key}} {
		switch {
		case p[1] != "" && p[3] == "":
			wrong(p[0], "there is no --%s to go with it; give both or neither", p[2])
		case p[1] == "" && p[3] != "":
			wrong(p[2], "there is no --%s to go with it; give both or neither", p[0])
		}
	}
}

// anyHost tells whether an address to listen on means all of a machine's.
func anyHost(listen string) bool {
	host, _, err := net.SplitHostPort(listen)
	ip := net.ParseIP(host)
	return err == nil && (host == "" || ip != nil && ip.IsUnspecified())
}
