package main

import (
	"context"

	"google.golang.org/grpc/metadata"

	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"
)

// identity is what tells a shard who the client is. etcd knows two names for it.
func identity(ctx context.Context) metadata.MD {
	in, _ := metadata.FromIncomingContext(ctx)
	out := metadata.MD{}
	for _, name := range []string{"token", "authorization"} {
		if v := in.Get(name); len(v) > 0 {
			out[name] = v
		}
	}
	return out
}

// askedAs is identity with what else makes a difference to a watch: whether it ends without a
// leader.
func askedAs(ctx context.Context) metadata.MD {
	in, _ := metadata.FromIncomingContext(ctx)
	out := identity(ctx)
	if v := in.Get(rpctypes.MetadataRequireLeaderKey); len(v) > 0 {
		out[rpctypes.MetadataRequireLeaderKey] = v
	}
	return out
}
