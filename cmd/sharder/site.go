package main

import (
	"context"
	"encoding/json"
	"errors"
	"expvar"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"slices"
	"strings"
	"sync/atomic"
	"time"

	"github.com/sourcegraph/conc"

	"github.com/sharder/sharder/conf"
	"github.com/sharder/sharder/stages/metrics"
	"github.com/sharder/sharder/stages/port"
	"go.etcd.io/etcd/pkg/v3/debugutil"
)

// site is the HTTP side for operators. Its paths, codes and texts are etcd's where etcd
// has them: /health in JSON, /livez and /readyz line by line with ?verbose, each check of
// them at a path of its own, and ?exclude=CHECK.
type site struct {
	counts   *metrics.Metrics
	fleet    *fleet          // nil where there are gateways alone
	life     context.Context // ends when the drain begins
	serving  atomic.Bool     // requests of clients are taken
	reporter reporter
}

// newSite makes the side. life ends when the sharder is asked to stop.
func newSite(life context.Context, counts *metrics.Metrics, f *fleet) *site {
	return &site{counts: counts, fleet: f, life: life, reporter: newReporter(f)}
}

// around has the side served on a listener while serve runs, and ends it afterwards.
// Without a listener there is only serve.
func (s *site) around(ctx context.Context, l *port.Listener, stdout io.Writer, log *slog.Logger, serve func(context.Context) error) error {
	if l == nil {
		return serve(ctx)
	}
	fmt.Fprintf(stdout, "serving %s on %s\n", strings.Join(s.paths(), ", "), urlOf(*l))
	return above(ctx, func(ctx context.Context, b *beneath) error {
		b.run(func(ctx context.Context) error { return s.run(ctx, l, log) })
		return serve(ctx)
	})
}

// siteDrain is how long those that are being answered have when the side ends.
const siteDrain = time.Second

// run serves until ctx ends. All that it began has ended when it returns.
func (s *site) run(ctx context.Context, l *port.Listener, log *slog.Logger) error {
	server := &http.Server{
		Handler: s.handler(), ReadHeaderTimeout: 5 * time.Second, WriteTimeout: time.Minute, IdleTimeout: time.Minute,
		BaseContext: func(net.Listener) context.Context { return ctx },
		ErrorLog:    slog.NewLogLogger(log.Handler(), slog.LevelDebug),
	}
	var wg conc.WaitGroup
	defer wg.Wait()
	wg.Go(func() {
		<-ctx.Done()
		bound, cancel := context.WithTimeout(context.WithoutCancel(ctx), siteDrain)
		defer cancel()
		if server.Shutdown(bound) != nil {
			_ = server.Close()
		}
	})
	serve := server.Serve
	if server.TLSConfig = l.TLS.Clone(); l.TLS != nil { // a clone: net/http changes it
		serve = func(l net.Listener) error { return server.ServeTLS(l, "", "") }
	}
	if err := serve(l.Listener); !errors.Is(err, http.ErrServerClosed) {
		return fmt.Errorf("the HTTP side on %s ended: %w", l.Addr(), err)
	}
	return nil
}

// paths are what there is to ask for.
func (s *site) paths() []string {
	if s.fleet == nil {
		return []string{"/metrics", "/livez", "/readyz"}
	}
	return []string{"/metrics", "/status", "/health", "/livez", "/readyz"}
}

// handler serves operators: the paths of everybody, and the whole report.
func (s *site) handler() http.Handler {
	mux := s.common()
	mux.HandleFunc("GET /{$}", func(w http.ResponseWriter, _ *http.Request) {
		fmt.Fprintf(w, "sharder\n\n%s\n", strings.Join(s.paths(), "\n"))
	})
	if s.fleet != nil {
		mux.HandleFunc("GET /status", s.status)
	}
	return mux
}

// clientHandler serves clients, on the client port: what etcd has there but for the API.
func (s *site) clientHandler(c conf.HTTP) *http.ServeMux {
	mux := s.common()
	mux.Handle("GET /debug/vars", expvar.Handler())
	if c.PProf {
		for path, h := range debugutil.PProfHandlers() {
			mux.Handle(path, h)
		}
	}
	return mux
}

// common are the paths that both have.
func (s *site) common() *http.ServeMux {
	mux := http.NewServeMux()
	mux.Handle("GET /metrics", s.counts.Handler())
	ready := []check{{"serving", s.checkServing}}
	if s.fleet != nil {
		mux.HandleFunc("GET /health", s.health)
		mux.HandleFunc("GET /version", s.version)
		// As grpc-proxy calls its own: to it /metrics and /health are of a member behind it.
		mux.Handle("GET /proxy/metrics", s.counts.Handler())
		mux.HandleFunc("GET /proxy/health", s.health)
		ready = append(ready, check{"order_log", s.checkOrderLog}, check{"shards", s.checkShards})
	}
	probe(mux, "/livez", nil)
	probe(mux, "/readyz", ready)
	return mux
}

// status is the whole report, as sharder status prints it.
func (s *site) status(w http.ResponseWriter, r *http.Request) {
	w.Header().Set("Content-Type", "application/json")
	e := json.NewEncoder(w)
	e.SetIndent("", "  ")
	_ = e.Encode(s.reporter.get(r.Context())) // the other side may have gone
}

// checkServing tells whether requests of clients are taken.
func (s *site) checkServing() error {
	switch {
	case s.life.Err() != nil:
		return errors.New("it is draining")
	case !s.serving.Load():
		return errors.New("it does not serve yet")
	}
	return nil
}

// checkOrderLog tells whether the order log has been read; without one there is nothing
// to read.
func (s *site) checkOrderLog() error {
	if c := s.fleet.central; c != nil && !c.loaded.Load() {
		return errors.New("the order log has not been read yet")
	}
	return nil
}

// checkShards tells whether every shard is let through to. That stays so once it was
// found out: a shard that goes away later is not this sharder's fault, and no reason to
// send clients elsewhere.
func (s *site) checkShards() error {
	var closed []string
	for _, g := range s.fleet.gates {
		if !g.open.Load() {
			closed = append(closed, g.name)
		}
	}
	if closed != nil {
		return fmt.Errorf("the stamp could not be checked yet of %s", strings.Join(closed, ", "))
	}
	return nil
}

// check is one of those that a probe is made of.
type check struct {
	name string
	run  func() error
}

// probe serves checks at a path, and each of them below it.
func probe(mux *http.ServeMux, path string, checks []check) {
	mux.HandleFunc("GET "+path, func(w http.ResponseWriter, r *http.Request) {
		excluded := r.URL.Query()["exclude"]
		answerProbe(w, r, slices.DeleteFunc(slices.Clone(checks), func(c check) bool { return slices.Contains(excluded, c.name) }))
	})
	for _, c := range checks {
		mux.HandleFunc("GET "+path+"/"+c.name, func(w http.ResponseWriter, r *http.Request) { answerProbe(w, r, []check{c}) })
	}
}

func answerProbe(w http.ResponseWriter, r *http.Request, checks []check) {
	var lines strings.Builder
	failed := false
	for _, c := range checks {
		if err := c.run(); err != nil {
			failed = true
			fmt.Fprintf(&lines, "[-]%s failed: %v\n", c.name, err)
			continue
		}
		fmt.Fprintf(&lines, "[+]%s ok\n", c.name)
	}
	if failed {
		http.Error(w, lines.String(), http.StatusServiceUnavailable)
		return
	}
	w.Header().Set("Content-Type", "text/plain; charset=utf-8")
	w.Header().Set("X-Content-Type-Options", "nosniff")
	if r.URL.Query().Has("verbose") {
		fmt.Fprint(w, lines.String())
	}
	fmt.Fprint(w, "ok\n")
}
