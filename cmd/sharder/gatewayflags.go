package main

import (
	"errors"
	"flag"
	"fmt"
	"io"
	"net"
	"strings"
	"time"

	"github.com/sharder/sharder/conf"
)

// gatewayUsage is what `sharder gateway` says without more.
const gatewayUsage = `usage: sharder gateway start [flags]

Passes TCP connections on to the members of an etcd cluster, as etcd gateway does.
sharder gateway start --help lists the flags. Several gateways, and more settings, are
written as [gateways.NAME] in a file: see conf/gateways.toml.
`

// runGateway is `sharder gateway`, with the flags of etcd gateway.
func runGateway(args []string, stdout, stderr io.Writer) int {
	if len(args) == 0 || args[0] != "start" {
		return usage(args, gatewayUsage, stdout, stderr)
	}
	f := newGatewayFlags(stdout)
	switch err := f.parse(args[1:]); {
	case errors.Is(err, flag.ErrHelp):
		return 0
	case err != nil:
		fmt.Fprintln(stderr, "sharder gateway:", err)
		return exitMisused
	}
	for _, note := range f.idle() {
		fmt.Fprintln(stderr, "sharder gateway:", note)
	}
	return serveUntilSignal(&f.cfg, f.verbose, serveGateways, stdout, stderr, hangup()...)
}

// gatewayFlags are those of etcd gateway, and a few of our own.
type gatewayFlags struct {
	*flag.FlagSet
	given     map[string]bool // by the caller
	cfg       conf.Config
	g         conf.Gateway
	endpoints list
	retry     time.Duration
	verbose   bool
}

// newGatewayFlags makes flags whose help goes to stdout.
func newGatewayFlags(stdout io.Writer) *gatewayFlags {
	f := &gatewayFlags{FlagSet: flag.NewFlagSet("sharder gateway start", flag.ContinueOnError), given: map[string]bool{}, cfg: *conf.Default()}
	f.g = conf.DefaultGateway("gateway")
	f.SetOutput(stdout)
	f.StringVar(&f.g.Listen, "listen-addr", "127.0.0.1:23790", "listen `address`")
	f.Var(&f.endpoints, "endpoints", "`addresses` of the members, separated by commas (default 127.0.0.1:2379)")
	f.StringVar(&f.g.DiscoverySRV, "discovery-srv", "", "find the members by the SRV records of this `domain`")
	f.StringVar(&f.g.DiscoveryName, "discovery-srv-name", "", "the `name` of the cluster in the records")
	f.BoolVar(&f.g.InsecureDiscovery, "insecure-discovery", false, "use members that are found without a certificate for the domain")
	f.StringVar(&f.g.TrustedCA, "trusted-ca-file", "", "believe the certificates in this `file`, for members that are found")
	f.DurationVar(&f.retry, "retry-delay", f.g.ProbeInterval, "how often members are probed, those that answer and those that don't")
	f.DurationVar(&f.g.DiscoveryInterval, "discovery-interval", f.g.DiscoveryInterval, "how often the records are looked up")
	f.StringVar(&f.g.Strategy, "strategy", f.g.Strategy, "how a member is picked: "+strings.Join(conf.Strategies, ", "))
	f.IntVar(&f.g.Connections, "connections", f.g.Connections, "how many connections may be open at once")
	f.DurationVar(&f.g.DialTimeout, "dial-timeout", f.g.DialTimeout, "bound of an attempt to reach a member")
	f.DurationVar(&f.cfg.DrainTimeout, "drain-timeout", f.cfg.DrainTimeout, "how long open connections may go on after the signal to stop")
	f.BoolVar(&f.verbose, "verbose", false, "log what is normal too")
	return f
}

// parse reads the flags and checks what they mean together.
func (f *gatewayFlags) parse(args []string) error {
	if err := parseEtcdFlags(f.FlagSet, args); err != nil {
		return err
	}
	f.Visit(func(x *flag.Flag) { f.given[x.Name] = true })
	f.g.ProbeInterval = f.retry
	switch {
	case f.g.DiscoverySRV != "":
	case f.given["endpoints"]:
		f.g.Endpoints = f.endpoints.each()
	default:
		f.g.Endpoints = []string{"127.0.0.1:2379"}
	}
	f.cfg.Listen, f.cfg.Gateways = nil, []conf.Gateway{f.g}
	return f.check()
}

// idle are the flags that are given and say nothing, and why. etcd's gateway takes them so, too.
func (f *gatewayFlags) idle() (notes []string) {
	if f.g.DiscoverySRV != "" {
		if f.given["endpoints"] {
			notes = append(notes, "--endpoints says nothing: the members are found by --discovery-srv")
		}
		return notes
	}
	for _, name := range []string{"discovery-srv-name", "insecure-discovery", "trusted-ca-file", "discovery-interval"} {
		if f.given[name] {
			notes = append(notes, "--"+name+" says nothing: the members are those of --endpoints")
		}
	}
	return notes
}

func (f *gatewayFlags) check() error {
	var errs []error
	wrong := func(flag, format string, args ...any) {
		errs = append(errs, fmt.Errorf("--%s: "+format, append([]any{flag}, args...)...))
	}
	for i, e := range withoutSchemes(f.g.Endpoints) {
		if _, _, err := net.SplitHostPort(e); err != nil {
			wrong("endpoints", "%q is no address; write host:port", f.g.Endpoints[i])
		} else if e == f.g.Listen {
			wrong("endpoints", "%q is the gateway itself; write where the etcd listens", e)
		}
	}
	if _, _, err := net.SplitHostPort(f.g.Listen); err != nil {
		wrong("listen-addr", "%q is no address; write host:port", f.g.Listen)
	}
	if f.g.DiscoverySRV == "" && len(f.g.Endpoints) == 0 {
		wrong("endpoints", "there is none; give the addresses of the members, or take the flag out for 127.0.0.1:2379")
	}
	for name, d := range map[string]time.Duration{
		"retry-delay": f.retry, "discovery-interval": f.g.DiscoveryInterval, "dial-timeout": f.g.DialTimeout, "drain-timeout": f.cfg.DrainTimeout,
	} {
		if d <= 0 {
			wrong(name, "%v is not a time to wait", d)
		}
	}
	if f.g.Connections < 1 {
		wrong("connections", "it is at least 1")
	}
	known := false
	for _, s := range conf.Strategies {
		known = known || s == f.g.Strategy
	}
	if !known {
		wrong("strategy", "%q is none of %s", f.g.Strategy, strings.Join(conf.Strategies, ", "))
	}
	return errors.Join(errs...)
}
