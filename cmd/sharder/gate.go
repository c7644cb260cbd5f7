package main

import (
	"context"
	"sync/atomic"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
)

// gate stands in front of a shard's connection and lets nothing through until the
// shard is known to be ours: stamped with our routes. So one shard that is down when
// sharder starts costs its own keys only, and two sharders with different routes never
// both serve. It opens once and stays open.
type gate struct {
	conn   grpc.ClientConnInterface
	name   string
	open   atomic.Bool
	reason atomic.Pointer[string] // why it is still closed
}

var _ grpc.ClientConnInterface = (*gate)(nil)

// Invoke is a unary call to the shard.
func (g *gate) Invoke(ctx context.Context, method string, args, reply any, opts ...grpc.CallOption) error {
	if err := g.check(); err != nil {
		return err
	}
	return g.conn.Invoke(ctx, method, args, reply, opts...)
}

// NewStream opens a stream to the shard.
func (g *gate) NewStream(ctx context.Context, desc *grpc.StreamDesc, method string, opts ...grpc.CallOption) (grpc.ClientStream, error) {
	if err := g.check(); err != nil {
		return nil, err
	}
	return g.conn.NewStream(ctx, desc, method, opts...)
}

func (g *gate) check() error {
	if g.open.Load() {
		return nil
	}
	reason := "not asked yet"
	if r := g.reason.Load(); r != nil {
		reason = *r
	}
	return status.Errorf(codes.Unavailable, "sharder: shard %s: its stamp could not be checked yet: %s", g.name, reason)
}

// keep notes why the gate stays closed.
func (g *gate) keep(err error) {
	text := err.Error()
	g.reason.Store(&text)
}
