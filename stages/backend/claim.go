package backend

import (
	"context"
	"errors"
	"fmt"

	"google.golang.org/grpc"
)

// Claim stamps all shards of a deployment, or checks that they are stamped so. The
// two slices are parallel, in the order of the configuration; what want says of the
// deployment is not looked at. It gives the deployment's id.
//
// The first shard decides between sharders that start at the same time: whoever
// stamps it first gives the id, the others take it over, and a sharder whose routes
// differ finds out there, before it has touched another shard. Claim may be
// repeated after any error. All mismatches are reported at once, joined.
func Claim(ctx context.Context, conns []grpc.ClientConnInterface, want []Stamp) (deployment string, err error) {
	if len(conns) == 0 || len(conns) != len(want) {
		return "", fmt.Errorf("sharder: %d shards and %d stamps", len(conns), len(want))
	}
	id, err := Deployment(ctx, conns)
	if err != nil {
		return "", err
	}
	first := want[0]
	first.Deployment = id
	got, err := CheckStamp(ctx, conns[0], first)
	if lost := (*StampMismatch)(nil); errors.As(err, &lost) && lost.onlyDeployment() {
		// Somebody else was first, with the same routes. What another shard says
		// about the deployment is compared below.
		id, err = got.Deployment, nil
	}
	errs := []error{err}
	if err == nil || isMismatch(err) {
		for i := 1; i < len(conns); i++ {
			s := want[i]
			s.Deployment = id
			errs = append(errs, check(ctx, conns[i], s, err == nil))
		}
	}
	return id, errors.Join(errs...)
}

// check compares one shard's stamp; only if it may write does it create one.
func check(ctx context.Context, conn grpc.ClientConnInterface, want Stamp, write bool) error {
	if write {
		_, err := CheckStamp(ctx, conn, want)
		return err
	}
	got, found, err := readStamp(ctx, conn, want.Shard)
	if err == nil && found && differs(got, want) {
		return &StampMismatch{Shard: want.Shard, Got: got, Want: want}
	}
	return err
}

// isMismatch reports whether the shard answered, with another stamp.
func isMismatch(err error) bool {
	return errors.As(err, new(*StampMismatch))
}
