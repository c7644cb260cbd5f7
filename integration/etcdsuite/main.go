//go:build unix

package main

import (
	"cmp"
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"net"
	"os"
	"os/signal"
	"slices"
	"strings"
	"syscall"
)

// few are tests that together show each part of how a harness uses the proxy: the ready line,
// the end by SIGTERM and another start, and clients in the clear, over TLS with certificates of
// all sides, a revoked one among them, and over TLS with one that the proxy makes.
const few = "^(TestAlarmlistOnMemberRestart|TestAuthTxn|TestCtlV3GetRevokedCRL|TestCtlV3Lock|" +
	"TestCtlV3LeaseKeepAliveClientAutoTLS|TestCtlV3WatchClientTLS|TestGrpcProxyTLSVersions)$"

// proxies are those that the suite can run with.
var proxies = []string{"sharder", "etcd"}

// options are what the flags say.
type options struct {
	proxy, run string
	few, keep  bool
}

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGINT, syscall.SIGTERM)
	err := run(ctx, os.Args[1:], os.Stdout, os.Stderr)
	stop()
	if err != nil && !errors.Is(err, flag.ErrHelp) {
		fmt.Fprintln(os.Stderr, "etcdsuite:", err)
		os.Exit(1)
	}
}

func parse(args []string, stderr io.Writer) (options, error) {
	var o options
	flags := flag.NewFlagSet("etcdsuite", flag.ContinueOnError)
	flags.SetOutput(stderr)
	flags.StringVar(&o.proxy, "proxy", "sharder", "the proxy: sharder or etcd")
	flags.StringVar(&o.run, "run", "", "only tests that this `pattern` is for, as of go test; their top level alone makes the known failures comparable")
	flags.BoolVar(&o.few, "few", false, "only a few tests, for a CI: "+few)
	flags.BoolVar(&o.keep, "keep", false, "leave the programs and the tests' module where they are, and say where")
	if err := flags.Parse(args); err != nil {
		return o, err
	}
	switch {
	case flags.NArg() > 0:
		return o, fmt.Errorf("unexpected argument %q", flags.Arg(0))
	case !slices.Contains(proxies, o.proxy):
		return o, fmt.Errorf("-proxy %q is none of %s", o.proxy, strings.Join(proxies, ", "))
	case o.few && o.run != "":
		return o, errors.New("-few and -run exclude each other")
	case o.few:
		o.run = few
	}
	return o, nil
}

// run is the whole program.
func run(ctx context.Context, args []string, stdout, stderr io.Writer) error {
	o, err := parse(args, stderr)
	if err != nil {
		return err
	}
	if err := portsFree(); err != nil {
		return err
	}
	dir, err := os.MkdirTemp("", "etcdsuite-")
	if err != nil {
		return err
	}
	if o.keep {
		fmt.Fprintln(stderr, "in", dir)
	} else {
		defer os.RemoveAll(dir)
	}
	b, err := setUp(ctx, dir, o.proxy)
	if err != nil {
		return err
	}
	a, err := b.runSuite(ctx, cmp.Or(o.run, "."), theSuite.hanging(o.proxy), stderr)
	if err != nil {
		return err
	}
	return report(a, b, o, stdout)
}

// portsFree finds out early that something else has a port that the tests use, such as
// another run or an etcd: everything would fail for that.
func portsFree() error {
	var errs []error
	for _, port := range []string{"2379", "2380", "20000", "23790"} {
		l, err := net.Listen("tcp", net.JoinHostPort("localhost", port))
		if err == nil {
			err = l.Close()
		}
		if err != nil {
			errs = append(errs, fmt.Errorf("the tests need port %s: %w", port, err))
		}
	}
	return errors.Join(errs...)
}

// report says how it ended, with all that the tests said that ended otherwise than they have to.
func report(a *account, b bench, o options, stdout io.Writer) error {
	verdict := theSuite.judge(o.proxy, a, o.run == "")
	if o.proxy == "sharder" && b.started() == 0 {
		verdict = append(verdict, wrong{"", "sharder was never started: these tests show nothing"})
	}
	for _, w := range verdict {
		if said := a.said[w.name]; said != nil {
			fmt.Fprintf(stdout, "\n=== %s\n%s", w.name, said)
		}
	}
	counts := map[ending]int{}
	for _, end := range a.endings {
		counts[end]++
	}
	fmt.Fprintf(stdout, "\n%d passed, %d failed, %d skipped; sharder was started %d times\n",
		counts[passed], counts[failed], counts[skipped], b.started())
	if len(verdict) == 0 {
		return nil
	}
	for _, w := range verdict {
		fmt.Fprintln(stdout, w)
	}
	return fmt.Errorf("%d things are not as they have to be", len(verdict))
}
