package main

import (
	"context"
	"encoding/json"
	"errors"
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

// listenOperators takes the address of the HTTP side; nil if there is none.
func listenOperators(cfg *conf.Config) (net.Listener, error) {
	if cfg.Metrics == "" {
		return nil, nil
	}
	l, err := net.Listen("tcp", cfg.Metrics)
	if err != nil {
		return nil, fmt.Errorf("listen on %s: %w (another address is set with metrics = \"...\" in %s)", cfg.Metrics, err, cfg.File)
	}
	return l, nil
}

// around has the side served on a listener while serve runs, and ends it afterwards.
// Without a listener there is only serve.
func (s *site) around(ctx context.Context, l net.Listener, stdout io.Writer, log *slog.Logger, serve func(context.Context) error) error {
	if l == nil {
		return serve(ctx)
	}
	fmt.Fprintf(stdout, "serving %s on http://%s\n", strings.Join(s.paths(), ", "), l.Addr())
	ctx, fail := context.WithCancelCause(ctx)
	defer fail(nil)
	background, stop := context.WithCancel(context.WithoutCancel(ctx))
	var wg conc.WaitGroup
	defer wg.Wait()
	defer stop()
	wg.Go(func() {
		if err := s.run(background, l, log); err != nil {
			fail(err)
		}
	})
	err := serve(ctx)
	if cause := context.Cause(ctx); err == nil && cause != nil && !errors.Is(cause, context.Canceled) {
		err = cause
	}
	return err
}

// siteDrain is how long those that are being answered have when the side ends.
const siteDrain = time.Second

// run serves until ctx ends. All that it began has ended when it returns.
func (s *site) run(ctx context.Context, l net.Listener, log *slog.Logger) error {
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
	if err := server.Serve(l); !errors.Is(err, http.ErrServerClosed) {
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

func (s *site) handler() http.Handler {
	mux := http.NewServeMux()
	mux.Handle("GET /metrics", s.counts.Handler())
	mux.HandleFunc("GET /{$}", func(w http.ResponseWriter, _ *http.Request) {
		fmt.Fprintf(w, "sharder\n\n%s\n", strings.Join(s.paths(), "\n"))
	})
	ready := []check{{"serving", s.checkServing}}
	if s.fleet != nil {
		mux.HandleFunc("GET /status", s.status)
		mux.HandleFunc("GET /health", s.health)
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

// health is etcd's answer to whether all is well. For a sharder that is: it serves, the
// order log and every shard answer, and nothing has raised an alarm.
func (s *site) health(w http.ResponseWriter, r *http.Request) {
	answer := struct {
		Health string `json:"health"`
		Reason string `json:"reason"`
	}{Health: "true"}
	problems := s.reporter.get(r.Context()).Problems
	if err := s.checkServing(); err != nil {
		problems = []string{err.Error()}
	}
	code := http.StatusOK
	if len(problems) > 0 {
		answer.Health, answer.Reason, code = "false", strings.Join(problems, "; "), http.StatusServiceUnavailable
	}
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(code)
	_ = json.NewEncoder(w).Encode(answer)
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
