package stages

import (
	"context"
	"slices"
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
	in, ok := metadata.FromIncomingContext(ctx)
	if !ok {
		return ctx
	}
	out, _ := metadata.FromOutgoingContext(ctx) // a copy
	return metadata.NewOutgoingContext(ctx, metadata.Join(out, withoutTransport(in)))
}

// transportKeys are header fields that describe one connection or one message on
// it, not what is said over it.
var transportKeys = []string{
	"content-type", "content-length", "content-encoding", "user-agent", "te", "host",
	"connection", "keep-alive", "proxy-connection", "transfer-encoding", "upgrade",
}

// withoutTransport is md without pseudo headers, gRPC's own and the transport's.
func withoutTransport(md metadata.MD) metadata.MD {
	out := make(metadata.MD, len(md))
	for k, vs := range md {
		if !strings.HasPrefix(k, ":") && !strings.HasPrefix(k, "grpc-") && !slices.Contains(transportKeys, k) {
			out[k] = vs
		}
	}
	return out
}
