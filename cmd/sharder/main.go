// Command sharder is one etcd endpoint in front of many etcd clusters.
//
//	sharder --conf conf/shards.toml
//	sharder import --from 10.0.0.1:2379 --conf conf/shards.toml
//	sharder status --conf conf/shards.toml
//	sharder member status --endpoint 127.0.0.1:2379 --shard a
//	sharder grpc-proxy start --endpoints 10.0.0.1:2379
//	sharder gateway start --endpoints 10.0.0.1:2379
//
// The file says which etcd clusters there are (or runs them inside the process) and
// which keys live where. chains.go has the way of every RPC, top to bottom. import brings
// the keys of a single etcd (package importer). status says how a deployment does, member
// is for the members of its clusters. grpc-proxy
// and gateway take the place of etcd's commands of these names, with their flags: the first
// serves one cluster, the second passes connections on byte by byte (package gateway).
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"log/slog"
	"os"
	"os/signal"
	"runtime"
	"runtime/debug"
	"strings"
	"syscall"
	"time"

	"github.com/sharder/sharder/conf"
)

func main() {
	quietGRPC()
	os.Exit(withHeapFloor(func() int { return run(os.Args[1:], os.Stdout, os.Stderr) }))
}

// Exit codes. A sharder that was asked to stop and drained exits with 0.
const (
	exitFailed  = 1 // something went wrong while starting or serving
	exitMisused = 2 // flags or configuration
)

func run(args []string, stdout, stderr io.Writer) int {
	if len(args) > 0 {
		switch args[0] {
		case "import":
			return runImport(args[1:], stdout, stderr)
		case "gateway":
			return runGateway(args[1:], stdout, stderr)
		case "grpc-proxy":
			return runProxy(args[1:], stdout, stderr)
		case "status":
			return runStatus(args[1:], stdout, stderr)
		case "member":
			return runMember(args[1:], stdout, stderr)
		}
	}
	flags := flag.NewFlagSet("sharder", flag.ContinueOnError)
	flags.SetOutput(stderr)
	file := flags.String("conf", "conf/shards.toml", "the configuration `file`")
	check := flags.Bool("check", false, "read the configuration, say what it means, and exit")
	version := flags.Bool("version", false, "print the version and exit")
	verbose := flags.Bool("verbose", false, "log what is normal too")
	switch err := flags.Parse(args); {
	case errors.Is(err, flag.ErrHelp):
		return 0
	case err != nil:
		return exitMisused
	case flags.NArg() > 0:
		fmt.Fprintf(stderr, "sharder: unexpected argument %q; the configuration is given with --conf\n", flags.Arg(0))
		return exitMisused
	}
	if *version {
		program, language := buildVersion()
		fmt.Fprintln(stdout, "sharder", program, language)
		return 0
	}
	cfg, err := conf.Load(*file)
	if err != nil {
		fmt.Fprintln(stderr, err)
		return exitMisused
	}
	if *check {
		return explain(cfg, stdout, stderr)
	}
	if len(cfg.Shards) == 0 {
		return serveUntilSignal(cfg, *verbose, serveGateways, stdout, stderr)
	}
	return serveUntilSignal(cfg, *verbose, serve, stdout, stderr)
}

// sameSignal is how long after a signal another one is the same.
const sameSignal = 500 * time.Millisecond

// serveUntilSignal serves in one of the ways there are until the process is told to stop.
// The first signal drains, the second one is the system's own: it kills. What comes at once is
// the first one again: who ends a group of processes (timeout, some shells and supervisors) sends
// it to the process and to the group.
func serveUntilSignal(cfg *conf.Config, verbose bool, serve func(context.Context, *conf.Config, io.Writer, *slog.Logger) error, stdout, stderr io.Writer, more ...os.Signal) int {
	level := slog.LevelInfo
	if verbose {
		level = slog.LevelDebug
	}
	log := slog.New(slog.NewTextHandler(stderr, &slog.HandlerOptions{Level: level}))
	ctx, stop := signal.NotifyContext(context.Background(), append(more, syscall.SIGINT, syscall.SIGTERM)...)
	defer stop()
	context.AfterFunc(ctx, func() { time.AfterFunc(sameSignal, stop) })
	if err := serve(ctx, cfg, stdout, log); err != nil {
		fmt.Fprintln(stderr, "sharder: "+strings.TrimPrefix(err.Error(), "sharder: "))
		return exitFailed
	}
	return 0
}

// hangup is SIGHUP for what runs from flags. There is no file that it could have read again, so it
// ends them as it ends etcd's proxies, when their terminal goes: unless whoever started them has
// had it ignored, as nohup does.
func hangup() []os.Signal {
	if signal.Ignored(syscall.SIGHUP) {
		return nil
	}
	return []os.Signal{syscall.SIGHUP}
}

// buildVersion says which program this is, and which Go made it.
func buildVersion() (program, language string) {
	info, ok := debug.ReadBuildInfo()
	if !ok {
		return "unknown", runtime.Version()
	}
	return info.Main.Version, info.GoVersion
}
