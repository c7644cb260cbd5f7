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
		fmt.Fprint(stderr, gatewayUsage)
		if len(args) > 0 && (args[0] == "-h" || args[0] == "--help" || args[0] == "help") {
			return 0
		}
		return exitMisused
	}
	f := newGatewayFlags(stderr)
	switch err := f.parse(args[1:]); {
	case errors.Is(err, flag.ErrHelp):
		return 0
	case err != nil:
		fmt.Fprintln(stderr, "sharder gateway:", err)
		return exitMisused
	}
	return serveUntilSignal(&f.cfg, f.verbose, serveGateways, stdout, stderr)
}

// gatewayFlags are those of etcd gateway, and a few of our own.
type gatewayFlags struct {
	*flag.FlagSet
	cfg       conf.Config
	g         conf.Gateway
	endpoints string
	retry     time.Duration
	verbose   bool
}

func newGatewayFlags(stderr io.Writer) *gatewayFlags {
	f := &gatewayFlags{FlagSet: flag.NewFlagSet("sharder gateway start", flag.ContinueOnError), cfg: *conf.Default()}
	f.g = conf.DefaultGateway("gateway")
	f.SetOutput(stderr)
	f.StringVar(&f.g.Listen, "listen-addr", "127.0.0.1:23790", "listen `address`")
	f.StringVar(&f.endpoints, "endpoints", "127.0.0.1:2379", "`addresses` of the members, separated by commas")
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
	if err := f.Parse(args); err != nil {
		return err
	}
	if f.NArg() > 0 {
		return fmt.Errorf("unexpected argument %q", f.Arg(0))
	}
	f.g.ProbeInterval = f.retry
	if f.g.DiscoverySRV == "" {
		f.g.Endpoints = strings.Split(f.endpoints, ",")
	}
	f.cfg.Listen, f.cfg.Gateways = nil, []conf.Gateway{f.g}
	return f.check()
}

func (f *gatewayFlags) check() error {
	set := map[string]bool{}
	f.Visit(func(x *flag.Flag) { set[x.Name] = true })
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
	if f.g.DiscoverySRV != "" && set["endpoints"] {
		wrong("endpoints", "the members are found with --discovery-srv; give one of the two")
	}
	for _, name := range []string{"discovery-srv-name", "insecure-discovery", "trusted-ca-file", "discovery-interval"} {
		if set[name] && f.g.DiscoverySRV == "" {
			wrong(name, "nothing is discovered without --discovery-srv")
		}
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
