package main

import (
	"context"
	"log/slog"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/peer"
	"google.golang.org/grpc/status"

	"github.com/sharder/sharder/conf"
)

// requestLog has a line for every request, and for every stream when it ends: which one, whose,
// how long it took and how it ended. What it was about is not in it: no key, no value, no
// password, no token. Without log_requests there is no log, and none of its cost.
type requestLog struct{ log *slog.Logger }

func newRequestLog(cfg *conf.Config, log *slog.Logger) *requestLog {
	if !cfg.GRPC.LogRequests {
		return nil
	}
	return &requestLog{log}
}

// unary is put around what serves unary RPCs.
func (l *requestLog) unary(inner grpc.UnaryServerInterceptor) grpc.UnaryServerInterceptor {
	if l == nil {
		return inner
	}
	return func(ctx context.Context, req any, info *grpc.UnaryServerInfo, next grpc.UnaryHandler) (any, error) {
		began := time.Now()
		resp, err := inner(ctx, req, info, next)
		l.line(ctx, info.FullMethod, began, err)
		return resp, err
	}
}

// stream is put around what serves streams.
func (l *requestLog) stream(inner grpc.StreamServerInterceptor) grpc.StreamServerInterceptor {
	if l == nil {
		return inner
	}
	return func(srv any, stream grpc.ServerStream, info *grpc.StreamServerInfo, next grpc.StreamHandler) error {
		began := time.Now()
		err := inner(srv, stream, info, next)
		l.line(stream.Context(), info.FullMethod, began, err)
		return err
	}
}

func (l *requestLog) line(ctx context.Context, method string, began time.Time, err error) {
	from := "unknown"
	if p, ok := peer.FromContext(ctx); ok {
		from = p.Addr.String()
	}
	l.log.Info("request", "rpc", method, "client", from, "took", time.Since(began), "code", status.Code(err))
}
