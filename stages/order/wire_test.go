package order_test

import (
	"context"
	"sync"

	"google.golang.org/grpc"
)

// wire is a connection that a test can look into: before is called ahead of each unary
// call and may hold it up or fail it; stream likewise for each message that a stream
// receives.
type wire struct {
	grpc.ClientConnInterface
	mu     sync.Mutex
	before func(ctx context.Context, method string, args any) error
	stream func(ctx context.Context) error
}

func (w *wire) set(before func(ctx context.Context, method string, args any) error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.before = before
}

func (w *wire) setStream(stream func(ctx context.Context) error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.stream = stream
}

func (w *wire) Invoke(ctx context.Context, method string, args, reply any, opts ...grpc.CallOption) error {
	w.mu.Lock()
	before := w.before
	w.mu.Unlock()
	if before != nil {
		if err := before(ctx, method, args); err != nil {
			return err
		}
	}
	return w.ClientConnInterface.Invoke(ctx, method, args, reply, opts...)
}

func (w *wire) NewStream(ctx context.Context, desc *grpc.StreamDesc, method string, opts ...grpc.CallOption) (grpc.ClientStream, error) {
	s, err := w.ClientConnInterface.NewStream(ctx, desc, method, opts...)
	return &wireStream{ClientStream: s, wire: w}, err
}

type wireStream struct {
	grpc.ClientStream
	wire *wire
}

func (s *wireStream) RecvMsg(m any) error {
	if err := s.ClientStream.RecvMsg(m); err != nil {
		return err
	}
	s.wire.mu.Lock()
	stream := s.wire.stream
	s.wire.mu.Unlock()
	if stream == nil {
		return nil
	}
	return stream(s.Context())
}
