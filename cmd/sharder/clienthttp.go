package main

import (
	"context"
	"errors"
	"log/slog"
	"math"
	"net"
	"net/http"
	"strings"
	"sync"
	"time"

	"github.com/sourcegraph/conc"
	"google.golang.org/grpc"

	"github.com/sharder/sharder/conf"
)

// clientHTTP is the HTTP side of the client port: etcd's own paths and, where a client of gRPC
// comes by HTTP's way (it offers both in TLS), gRPC.
//
// What asks for more than this process's HTTP side itself knows goes to a gRPC server of its
// own: gRPC can't drain connections that an HTTP server holds, so the HTTP server is drained
// first, and then nothing is left there.
type clientHTTP struct {
	server *http.Server
	grpc   *grpc.Server
	json   *jsonGateway // nil without
	asked  asked
	stop   context.CancelFunc // ends the contexts of all requests
}

// readHeaderTimeout is etcd's.
const readHeaderTimeout = 5 * time.Minute

// newClientHTTP makes the side. Whoever made it calls serve, and drain when it is over.
func newClientHTTP(cfg *conf.Config, side *site, inner *grpc.Server, log *slog.Logger) (*clientHTTP, error) {
	h := &clientHTTP{grpc: inner}
	mux := side.clientHandler(cfg.HTTP)
	if cfg.HTTP.Gateway {
		var err error
		if h.json, err = newJSONGateway(int(cfg.MaxRequestBytes)); err != nil {
			return nil, err
		}
		mux.Handle("/v3/", h.json.handler())
	}
	var life context.Context
	life, h.stop = context.WithCancel(context.Background())
	h.server = &http.Server{
		Handler: h.asked.count(h.route(mux)), ReadHeaderTimeout: readHeaderTimeout,
		BaseContext: func(net.Listener) context.Context { return life },
		ErrorLog:    slog.NewLogLogger(log.Handler(), slog.LevelDebug),
		HTTP2: &http.HTTP2Config{
			// net/http takes more than it can count for its own default.
			MaxConcurrentStreams: int(min(cfg.GRPC.MaxConcurrentStreams, math.MaxInt32)),
			SendPingTimeout:      cfg.GRPC.KeepAliveInterval, PingTimeout: cfg.GRPC.KeepAliveTimeout,
		},
	}
	return h, nil
}

// route tells gRPC by its content, as etcd does.
func (h *clientHTTP) route(mux http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.ProtoMajor == 2 && strings.HasPrefix(r.Header.Get("Content-Type"), "application/grpc") {
			h.grpc.ServeHTTP(w, r)
			return
		}
		if rest, ok := strings.CutPrefix(r.URL.Path, "/v3beta/"); ok { // etcd's older name
			r.URL.Path = "/v3/" + rest
		}
		mux.ServeHTTP(w, r)
	})
}

// serve serves until drain.
func (h *clientHTTP) serve(l net.Listener) error {
	var wg conc.WaitGroup
	defer wg.Wait()
	if h.json != nil {
		wg.Go(func() { _ = h.grpc.Serve(h.json.inside) }) // ends when drain stops it
	}
	if err := h.server.Serve(l); !errors.Is(err, http.ErrServerClosed) {
		h.grpc.Stop()
		return err
	}
	return nil
}

// drain takes no more requests and waits for those there are until ctx ends; then it ends
// them. It tells whether all ended by themselves. Connections that are no longer HTTP's, of
// websockets, are the port's to close; then wait returns.
func (h *clientHTTP) drain(ctx context.Context) bool {
	err := h.server.Shutdown(ctx)
	ended := err == nil && h.asked.wait(ctx)
	if !ended {
		_ = h.server.Close()
	}
	h.stop()
	h.grpc.Stop()
	if h.json != nil {
		_ = h.json.conn.Close()
	}
	return ended
}

// wait returns when nothing is answered any more.
func (h *clientHTTP) wait() { h.asked.wait(context.Background()) }

// asked counts what is being answered, so that it can be waited for: the HTTP server knows
// nothing of connections that were taken out of its hands.
type asked struct {
	mu    sync.Mutex
	n     int
	empty chan struct{} // closed when n is 0 and somebody waits
}

func (a *asked) add(n int) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.n += n
	if a.n == 0 && a.empty != nil {
		close(a.empty)
		a.empty = nil
	}
}

// count counts the requests of a handler.
func (a *asked) count(h http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		a.add(1)
		defer a.add(-1)
		h.ServeHTTP(w, r)
	})
}

// wait waits until nothing is being answered, or ctx ends, and tells which.
func (a *asked) wait(ctx context.Context) bool {
	a.mu.Lock()
	if a.n == 0 {
		a.mu.Unlock()
		return true
	}
	if a.empty == nil {
		a.empty = make(chan struct{})
	}
	empty := a.empty
	a.mu.Unlock()
	select {
	case <-empty:
		return true
	case <-ctx.Done():
		return false
	}
}
