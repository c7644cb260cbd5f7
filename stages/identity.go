package stages

import (
	"context"
	"maps"
	"strings"

	"google.golang.org/grpc/metadata"

	"github.com/sharder/sharder/pipeline"
)

// ForwardIdentity lets a shard see the client's own metadata: its auth token,
// its require-leader mark, its API version and whatever else it sent. For chains
// with one shard, which stand in for the cluster itself; over several shards a
// token of one would mean nothing to the others. It is a
// pipeline.Middleware[Call, Reply].
func ForwardIdentity(next pipeline.Stage[Call, Reply]) pipeline.Stage[Call, Reply] {
	return func(ctx context.Context, call Call) (Reply, error) {
		return next(ForwardMetadata(ctx), call)
	}
}

// ForwardMetadata gives a context whose outgoing metadata holds what the client
// sent in, besides what ctx already had outgoing; ForwardIdentity for streams.
// Keys that belong to the transport stay behind.
func ForwardMetadata(ctx context.Context) context.Context {
	in := sentIn(ctx)
	if len(in) == 0 {
		return ctx
	}
	if out, ok := metadata.FromOutgoingContext(ctx); ok { // a copy
		in = metadata.Join(out, in)
	}
	return metadata.NewOutgoingContext(ctx, in)
}

// sentKey is the context key of what WithSent found.
type sentKey struct{}

// WithSent notes in a context what of a request's header ForwardMetadata will forward. The
// header is that of a tap (grpc.InTapHandle), where it can be looked at: later on gRPC only
// gives copies of the whole of it, which for most requests has nothing to forward. Nobody has
// to call it. The header is not changed, and must not be from now on.
func WithSent(ctx context.Context, header metadata.MD) context.Context {
	return context.WithValue(ctx, sentKey{}, withoutTransport(header))
}

// sentIn is what the client sent, without the keys of the transport.
func sentIn(ctx context.Context) metadata.MD {
	if sent, ok := ctx.Value(sentKey{}).(metadata.MD); ok {
		return sent
	}
	in, _ := metadata.FromIncomingContext(ctx) // a copy
	maps.DeleteFunc(in, func(k string, _ []string) bool { return ofTransport(k) })
	return in
}

// ofTransport tells whether a header field describes one connection or one message on it,
// and not what is said over it: pseudo headers, gRPC's own, and the transport's.
func ofTransport(k string) bool {
	switch k {
	case "content-type", "content-length", "content-encoding", "user-agent", "te", "host",
		"connection", "keep-alive", "proxy-connection", "transfer-encoding", "upgrade":
		return true
	}
	return strings.HasPrefix(k, ":") || strings.HasPrefix(k, "grpc-")
}

// withoutTransport is md without the keys of the transport; nil if that is all there is.
func withoutTransport(md metadata.MD) metadata.MD {
	var out metadata.MD
	for k, vs := range md {
		if ofTransport(k) {
			continue
		}
		if out == nil {
			out = make(metadata.MD, len(md))
		}
		out[k] = vs
	}
	return out
}
