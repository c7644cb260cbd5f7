package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"log/slog"
	"math"
	"net"
	"os"
	"os/signal"
	"strings"
	"syscall"

	"github.com/sourcegraph/conc"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/test/bufconn"

	"github.com/sharder/sharder/conf"
	"github.com/sharder/sharder/importer"
	"github.com/sharder/sharder/stages/backend"
	"github.com/sharder/sharder/stages/port"
	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
)

// importing is one "sharder import": the flags, and where its words go.
type importing struct {
	endpoints, file, prefix     string
	dryRun, verifyOnly, verbose bool

	from           conf.Shard // the source, spoken to as a shard is
	cfg            *conf.Config
	options        importer.Options
	stdout, stderr io.Writer
	terminal       bool // stderr is one
}

// runImport is the subcommand. It gives the exit code: 0 for done and verified, 1 for
// failed or different, 2 for misused.
func runImport(args []string, stdout, stderr io.Writer) int {
	im := &importing{stdout: stdout, stderr: stderr, terminal: isTerminal(stderr)}
	switch err := im.parse(args); {
	case errors.Is(err, flag.ErrHelp):
		return 0
	case err != nil:
		fmt.Fprintln(stderr, "sharder import:", err)
		return exitMisused
	}
	level := slog.LevelWarn
	if im.verbose {
		level = slog.LevelDebug
	}
	log := slog.New(slog.NewTextHandler(stderr, &slog.HandlerOptions{Level: level}))

	// The first signal stops between two writes, the second one kills; either can be
	// gone on from.
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGINT, syscall.SIGTERM)
	defer stop()
	context.AfterFunc(ctx, stop)
	err := withFleet(ctx, im.cfg, log, func(ctx context.Context, f *fleet) error { return im.bring(ctx, f, log) })
	switch {
	case err == nil:
		return 0
	case ctx.Err() != nil:
		fmt.Fprintln(stderr, "sharder import: stopped; the same command goes on from here")
	default:
		fmt.Fprintln(stderr, "sharder import: "+strings.TrimPrefix(err.Error(), "sharder: "))
	}
	return exitFailed
}

// isTerminal tells whether somebody looks at what is written there.
func isTerminal(w io.Writer) bool {
	f, ok := w.(*os.File)
	if !ok {
		return false
	}
	info, err := f.Stat()
	return err == nil && info.Mode()&os.ModeCharDevice != 0
}

// bring does the import over an open fleet.
func (im *importing) bring(ctx context.Context, f *fleet, log *slog.Logger) error {
	o, err := clusterOptions(im.from, log)
	if err != nil {
		return err
	}
	source, err := backend.Open(o)
	if err != nil {
		return err
	}
	background, stop := context.WithCancel(context.WithoutCancel(ctx))
	var wg conc.WaitGroup
	defer source.Close()
	defer wg.Wait()
	defer stop()
	wg.Go(func() { _ = source.Run(background) })

	im.options.Source = etcdOn(source)
	im.options.Records = pb.NewKVClient(f.central.cluster)
	begun, err := f.hasBegun(ctx)
	if err != nil {
		return err
	}
	if !begun {
		if err := im.chooseStart(ctx, f); err != nil {
			return err
		}
		if im.options.Mode == importer.DryRun {
			im.options.Target = importer.Etcd{KV: f.unordered(im.cfg)}
			return im.run(ctx, func(r *importer.Report) { r.Start = max(1, f.central.first-1) })
		}
	}
	return im.serveMyself(ctx, f, log)
}

func etcdOn(conn grpc.ClientConnInterface) importer.Etcd {
	return importer.Etcd{KV: pb.NewKVClient(conn), Lease: pb.NewLeaseClient(conn)}
}

// serveMyself is a sharder like any other, with an import as its only client. The
// sharder outlives the import; if it can't serve, the import ends for its reason.
func (im *importing) serveMyself(ctx context.Context, f *fleet, log *slog.Logger) error {
	inside := bufconn.Listen(1 << 20)
	conn, err := grpc.NewClient("passthrough:///sharder",
		grpc.WithContextDialer(func(ctx context.Context, _ string) (net.Conn, error) { return inside.DialContext(ctx) }),
		grpc.WithTransportCredentials(insecure.NewCredentials()),
		grpc.WithDefaultCallOptions(grpc.MaxCallRecvMsgSize(math.MaxInt32), grpc.MaxCallSendMsgSize(math.MaxInt32)))
	if err != nil {
		return err
	}
	im.options.Target = etcdOn(conn)
	serving, stop := context.WithCancel(context.WithoutCancel(ctx))
	ctx, fail := context.WithCancelCause(ctx)
	defer fail(nil)
	var wg conc.WaitGroup
	defer wg.Wait()
	defer inside.Close()
	defer stop()
	defer conn.Close()
	wg.Go(func() { fail(f.serve(serving, im.cfg, []port.Listener{{Listener: inside}}, nil, io.Discard, log)) })
	return im.run(ctx, func(*importer.Report) {})
}

// run runs the importer with its progress shown, and tells the report, changed by edit.
func (im *importing) run(ctx context.Context, edit func(*importer.Report)) error {
	show := importer.Lines
	if im.terminal {
		show = importer.Bar
	}
	im.options.Progress = &importer.Progress{}
	showing, stop := context.WithCancel(context.WithoutCancel(ctx))
	var wg conc.WaitGroup
	wg.Go(func() { show(showing, im.options.Progress, im.stderr) })
	report, err := importer.Run(ctx, im.options)
	stop()
	wg.Wait()
	if report.Source != "" {
		edit(report)
		report.Write(im.stdout)
	}
	return err
}
