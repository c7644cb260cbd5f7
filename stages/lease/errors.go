package lease

import (
	"context"
	"errors"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/sharder/sharder/stages"
	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"
)

// statusOf gives code and text of an error as etcd wrote them, however it was
// wrapped on the way. The text is empty for what isn't a gRPC status.
func statusOf(err error) (codes.Code, string) {
	var st interface{ GRPCStatus() *status.Status }
	if errors.As(err, &st) {
		return st.GRPCStatus().Code(), st.GRPCStatus().Message()
	}
	var ee rpctypes.EtcdError
	if errors.As(err, &ee) {
		return ee.Code(), ee.Error()
	}
	return codes.Unknown, ""
}

func isEtcd(err, want error) bool {
	code, text := statusOf(err)
	wantCode, wantText := statusOf(want)
	return code == wantCode && text == wantText
}

// isLeaseNotFound tells etcd's refusal of a put with, or a revocation of, a lease
// that is not there. The request it answers has done nothing.
func isLeaseNotFound(err error) bool { return isEtcd(err, rpctypes.ErrGRPCLeaseNotFound) }

func isLeaseExist(err error) bool { return isEtcd(err, rpctypes.ErrGRPCLeaseExist) }

// at names the shard an error came from; the edge decides whether to show it.
func at(s *stages.Shard, err error) error {
	if err == nil {
		return nil
	}
	return &stages.ShardError{Shard: s, Err: err}
}

// unreachable tells that a shard couldn't be asked, or didn't answer, from a
// refusal that it gave.
func unreachable(err error) bool {
	if errors.Is(err, context.DeadlineExceeded) || errors.Is(err, context.Canceled) {
		return true
	}
	switch code, _ := statusOf(err); code {
	case codes.Unavailable, codes.DeadlineExceeded, codes.Canceled, codes.Unknown, codes.Internal:
		return true
	}
	return false
}

// gone decides what a client is told whose request could not be finished: its own
// context's end if that is the reason, else Unavailable with our text.
func gone(ctx context.Context, format string, args ...any) error {
	if err := ctx.Err(); err != nil {
		return status.FromContextError(err).Err()
	}
	return status.Errorf(codes.Unavailable, "sharder: "+format, args...)
}

// bounded makes one call to a shard that takes no longer than limit, also when the
// client set no deadline. The error names the shard; running into the limit, rather
// than into the client's own deadline, is Unavailable.
func bounded(ctx context.Context, limit time.Duration, s *stages.Shard, call func(ctx context.Context) error) error {
	own, cancel := context.WithTimeout(ctx, limit)
	defer cancel()
	err := call(own)
	if err != nil && own.Err() != nil && ctx.Err() == nil {
		err = status.Errorf(codes.Unavailable, "sharder: %v did not answer within %v", s, limit)
	}
	return at(s, err)
}
