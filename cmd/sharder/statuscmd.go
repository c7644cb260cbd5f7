package main

import (
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/url"
	"os/signal"
	"strings"
	"syscall"
	"time"

	"github.com/sharder/sharder/conf"
	"github.com/sharder/sharder/stages/order"
)

// sharder status says how a deployment does. It asks the clusters of the file, needs no
// sharder for that, and writes nothing. Embedded ones are only there while their sharder
// runs: then it is the sharder that is asked, through its HTTP side.

const statusUsage = `usage: sharder status --conf FILE [--json]

Asks the order cluster and the shards of FILE how they are, and prints it: revisions, lag,
alarms, sizes, and the transactions over several shards that are not finished. It writes
nothing, and works while no sharder runs. Where etcds are embedded, and with --endpoint, a
running sharder is asked for the same, at its address for metrics.

Exit code: 0 if everybody answered, 1 if not, 2 for wrong flags or a wrong file.

`

// statusOptions are the flags.
type statusOptions struct {
	dialTLS
	file, endpoint string
	json           bool
	timeout        time.Duration
}

func parseStatus(args []string, stderr io.Writer) (o statusOptions, err error) {
	flags := flag.NewFlagSet("sharder status", flag.ContinueOnError)
	flags.SetOutput(stderr)
	flags.Usage = func() {
		fmt.Fprint(stderr, statusUsage)
		flags.PrintDefaults()
	}
	flags.StringVar(&o.file, "conf", "conf/shards.toml", "the configuration `file` of the deployment")
	flags.StringVar(&o.endpoint, "endpoint", "", "ask the sharder whose `address` for metrics this is, not the clusters: host:port, https://host:port or unix:///path")
	o.dialTLS.flags(flags)
	flags.BoolVar(&o.json, "json", false, "print JSON, the same as /status answers")
	flags.DurationVar(&o.timeout, "timeout", 5*time.Second, "how long to wait for answers")
	if err := flags.Parse(args); err != nil {
		return o, err
	}
	if err = o.dialTLS.check(); flags.NArg() > 0 {
		err = fmt.Errorf("unexpected argument %q; the configuration is given with --conf", flags.Arg(0))
	}
	if err != nil {
		fmt.Fprintln(stderr, "sharder status:", err)
	}
	return o, err
}

func runStatus(args []string, stdout, stderr io.Writer) int {
	o, err := parseStatus(args, stderr)
	switch {
	case errors.Is(err, flag.ErrHelp):
		return 0
	case err != nil:
		return exitMisused
	}
	cfg, err := conf.Load(o.file)
	if err != nil {
		fmt.Fprintln(stderr, err)
		return exitMisused
	}
	if len(cfg.Shards) == 0 {
		fmt.Fprintf(stderr, "sharder status: %s has gateways alone, which keep nothing to ask for; how they do is in /metrics\n", o.file)
		return exitMisused
	}
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGINT, syscall.SIGTERM)
	defer stop()
	r, err := o.ask(ctx, cfg)
	if err != nil {
		fmt.Fprintln(stderr, "sharder status: "+strings.TrimPrefix(err.Error(), "sharder: "))
		return exitFailed
	}
	if o.json {
		e := json.NewEncoder(stdout)
		e.SetIndent("", "  ")
		_ = e.Encode(r)
	} else {
		r.print(stdout)
	}
	if !r.Complete {
		return exitFailed
	}
	return 0
}

// ask gets the report from whoever can give it.
func (o statusOptions) ask(ctx context.Context, cfg *conf.Config) (*report, error) {
	ctx, cancel := context.WithTimeout(ctx, o.timeout)
	defer cancel()
	inside := embeddedIn(cfg)
	if o.endpoint == "" && inside == "" {
		return lookAt(ctx, cfg)
	}
	at, err := o.address(cfg, inside)
	if err != nil {
		return nil, err
	}
	r, err := o.askSharder(ctx, at)
	if err != nil && inside != "" {
		err = fmt.Errorf("%w; %s of %s is an embedded etcd, which is there only while its sharder runs", err, inside, cfg.File)
	}
	return r, err
}

// embeddedIn names a cluster of the file that is embedded; empty if none is.
func embeddedIn(cfg *conf.Config) string {
	if cfg.Order != nil && cfg.Order.Embedded {
		return "the order cluster"
	}
	for _, s := range cfg.Shards {
		if s.Embedded {
			return "shard " + s.Name
		}
	}
	return ""
}

// address is where the sharder is to be asked.
func (o statusOptions) address(cfg *conf.Config, inside string) (conf.Listener, error) {
	l, ok := cfg.Operators()
	if o.endpoint != "" {
		var err error
		if l, err = conf.ParseListener(o.endpoint); err != nil {
			return l, fmt.Errorf("--endpoint: %w", err)
		}
		ok = true
	}
	host, port, _ := net.SplitHostPort(l.Address)
	switch {
	case !ok || l.Network == "tcp" && port == "0":
		return l, fmt.Errorf("%s of %s is an embedded etcd, which lives inside the running sharder: write metrics = \"127.0.0.1:2381\" at the top of the file and start the sharder anew, or name its address for metrics with --endpoint", inside, cfg.File)
	case l.Network == "tcp" && host == "":
		l.Address = net.JoinHostPort("127.0.0.1", port)
	}
	return l, nil
}

// askSharder gets the report of a running sharder.
func (o statusOptions) askSharder(ctx context.Context, at conf.Listener) (*report, error) {
	address, host := at.Address, at.Address
	if at.Network == "unix" {
		host = "localhost"
	}
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, scheme(at.TLS || o.dialTLS.given())+"://"+host+"/status", nil)
	if err != nil {
		return nil, err // not reached: the address has been looked at
	}
	secure, err := o.dialTLS.config()
	if err != nil {
		return nil, err
	}
	client := &http.Client{Transport: &http.Transport{
		DisableKeepAlives: true, TLSClientConfig: secure,
		DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
			return new(net.Dialer).DialContext(ctx, at.Network, address)
		},
	}}
	resp, err := client.Do(req)
	if err != nil {
		var why *url.Error
		if errors.As(err, &why) {
			err = why.Err // without the method and the address once more
		}
		return nil, fmt.Errorf("no sharder answers at %s: %w", address, err)
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(io.LimitReader(resp.Body, 64<<20))
	if err != nil {
		return nil, fmt.Errorf("%s: %w", req.URL, err)
	}
	r := &report{}
	if resp.StatusCode != http.StatusOK || json.Unmarshal(body, r) != nil {
		return nil, fmt.Errorf("%s answers %s, and no status of a sharder; is that its address for metrics?", req.URL, resp.Status)
	}
	r.From += " at " + address
	return r, nil
}

// lookAt asks the clusters of the file. Nothing is claimed, stamped or written: the log
// is read, and not followed.
func lookAt(ctx context.Context, cfg *conf.Config) (r *report, err error) {
	log := slog.New(slog.DiscardHandler)
	err = withFleet(ctx, cfg, log, func(ctx context.Context, f *fleet) error {
		logError := f.readLogOnce(ctx)
		var other *anotherDeployment
		if errors.As(logError, &other) {
			return other
		}
		r = f.report(ctx, logError)
		r.From = "sharder status"
		return nil
	})
	return r, err
}

// readLogOnce reads the order log up to where it is now. It leaves more than half of the time that there
// is to what is asked behind it.
func (f *fleet) readLogOnce(ctx context.Context) error {
	c := f.central
	if c == nil {
		return nil
	}
	if end, ok := ctx.Deadline(); ok {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeout(ctx, time.Until(end)*2/5)
		defer cancel()
	}
	switch err := c.order.Load(ctx); {
	case errors.Is(err, order.ErrNoLog):
		return errors.New("there is none: the deployment has not begun, or this is not its order cluster")
	case err != nil:
		return err
	}
	if diff := c.order.Genesis().Difference(f.names(), f.table.Fingerprint(), f.table.Describe()); diff != "" {
		return &anotherDeployment{diff}
	}
	return nil
}

// anotherDeployment says that the file is not the one of the deployment: what it says
// of shards can't be told from what is there.
type anotherDeployment struct{ difference string }

func (e *anotherDeployment) Error() string { return e.difference }
