package backend

import (
	"context"

	"google.golang.org/grpc"
)

// LookupStamp compares a shard's stamp with want and writes nothing. found is false if
// the shard has none. A stamp that says something else is a *StampMismatch; a
// deployment that want leaves empty is not compared. An error that carries a gRPC
// status says that the shard could not be asked.
func LookupStamp(ctx context.Context, conn grpc.ClientConnInterface, want Stamp) (got Stamp, found bool, err error) {
	got, found, err = readStamp(ctx, conn, want.Shard)
	if err != nil || !found {
		return got, false, err
	}
	if want.Deployment == "" {
		want.Deployment = got.Deployment
	}
	if differs(got, want) {
		return got, true, &StampMismatch{Shard: want.Shard, Got: got, Want: want}
	}
	return got, true, nil
}
