package main

import (
	"context"
	"log/slog"
	"runtime/debug"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
)

// A panic while serving one request is that request's error and a line in the log,
// never the end of the process.

func recoverUnary(ctx context.Context, req any, info *grpc.UnaryServerInfo, next grpc.UnaryHandler) (resp any, err error) {
	deepen(0)
	defer func() {
		if p := recover(); p != nil {
			err = panicked(info.FullMethod, p)
		}
	}()
	return next(ctx, req)
}

func recoverStream(srv any, stream grpc.ServerStream, info *grpc.StreamServerInfo, next grpc.StreamHandler) (err error) {
	defer func() {
		if p := recover(); p != nil {
			err = panicked(info.FullMethod, p)
		}
	}()
	return next(srv, stream)
}

func panicked(method string, p any) error {
	slog.Error("panic", "method", method, "panic", p, "stack", string(debug.Stack()))
	return status.Errorf(codes.Internal, "sharder: internal error in %s", method)
}
