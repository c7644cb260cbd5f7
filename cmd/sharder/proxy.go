package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"log/slog"

	"github.com/sharder/sharder/conf"
)

// proxyUsage is what `sharder grpc-proxy` says without more.
const proxyUsage = `usage: sharder grpc-proxy start [flags]

Serves one etcd cluster, as etcd grpc-proxy does and with its flags: they are listed by
sharder grpc-proxy start --help. The same as a file, where there is more to set, is printed by
sharder grpc-proxy start --print-config [flags].
`

// runProxy is `sharder grpc-proxy`.
func runProxy(args []string, stdout, stderr io.Writer) int {
	if len(args) == 0 || args[0] != "start" {
		return usage(args, proxyUsage, stdout, stderr)
	}
	f := newProxyFlags(stdout)
	switch err := f.parse(args[1:]); {
	case errors.Is(err, flag.ErrHelp):
		return 0
	case err != nil:
		return misused(stderr, err)
	}
	cfg, src, err := f.config()
	switch {
	case err != nil:
		return misused(stderr, err)
	case f.printConfig:
		fmt.Fprint(stdout, src)
		return 0
	}
	for _, note := range f.idle() {
		fmt.Fprintln(stderr, "sharder grpc-proxy:", note)
	}
	return serveUntilSignal(cfg, f.debug, serveProxy, stdout, stderr, hangup()...)
}

// serveProxy is serve that says it in grpc-proxy's words when it is ready: scripts wait for them.
func serveProxy(ctx context.Context, cfg *conf.Config, stdout io.Writer, log *slog.Logger) error {
	return serveAndTell(ctx, cfg, stdout, log, func(addresses string) {
		log.Info("started gRPC proxy", "address", addresses)
	})
}

// misused says, line by line, what is wrong with the flags.
func misused(stderr io.Writer, err error) int {
	fmt.Fprintln(stderr, "sharder grpc-proxy:", err)
	return exitMisused
}
