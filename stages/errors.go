package stages

import (
	"context"
	"errors"
	"fmt"
	"strings"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"

	"github.com/sharder/sharder/pipeline"
	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"
)

// ShardError is what went wrong on the way to a shard or on it. It carries the
// cause untouched; ErrorStatus decides what of it the client sees. Logs and
// metrics find it with errors.As.
type ShardError struct {
	Shard *Shard
	Err   error
	// Header and Trailer are the gRPC metadata the shard sent with the error, if any.
	Header  metadata.MD
	Trailer metadata.MD
}

// Error names the shard in front of the cause.
func (e *ShardError) Error() string {
	if e.Shard.Number == OrderCluster {
		return fmt.Sprintf("%v: %v", e.Shard, e.Err)
	}
	return fmt.Sprintf("shard %q: %v", e.Shard.Name, e.Err)
}

// Unwrap gives the cause.
func (e *ShardError) Unwrap() error { return e.Err }

// ErrorStatus turns whatever a chain returned into the error a client gets; it
// belongs at the edge, behind the last stage. nil stays nil, and applying it
// twice changes nothing.
//
// A gRPC status found inside is passed on as it is: code, text and details, with
// nothing in front, because clients match etcd's errors by code and text. The
// exception is a failure of the transport (Unavailable, Internal,
// ResourceExhausted without etcd's or our own mark), whose text is of no use
// without the shard's name: "sharder: shard NAME: " (or "sharder: order cluster: ")
// goes in front, the code stays. A full link is etcd's "too many requests". Context errors keep their
// codes. Anything else is Internal.
func ErrorStatus(err error) error {
	if err == nil {
		return nil
	}
	if st := innermost(err); st != nil {
		return named(err, st).Err()
	}
	switch {
	case errors.Is(err, pipeline.ErrFull):
		return rpctypes.ErrGRPCRequestTooManyRequests
	case errors.Is(err, context.Canceled):
		return status.FromContextError(context.Canceled).Err()
	case errors.Is(err, context.DeadlineExceeded):
		return status.FromContextError(context.DeadlineExceeded).Err()
	}
	return status.Error(codes.Internal, "sharder: "+err.Error())
}

// Fail is ErrorStatus for a unary request, at the same place: the metadata that the
// shard sent with its error goes to the client, too. ctx is the request's.
func Fail(ctx context.Context, err error) error {
	var at *ShardError
	if errors.As(err, &at) {
		// Best effort: the error itself must reach the client in any case.
		_ = sendMetadata(ctx, at.Header, at.Trailer)
	}
	return ErrorStatus(err)
}

// innermost is the deepest gRPC status that err wraps, or nil.
func innermost(err error) *status.Status {
	var found *status.Status
	for err != nil {
		var carrier interface {
			error
			GRPCStatus() *status.Status
		}
		if !errors.As(err, &carrier) {
			return found
		}
		found = carrier.GRPCStatus()
		err = errors.Unwrap(carrier)
	}
	return found
}

// named puts the shard's name in front of a transport failure.
func named(err error, st *status.Status) *status.Status {
	var at *ShardError
	if !errors.As(err, &at) || !isTransport(st) {
		return st
	}
	p := st.Proto() // a copy; details stay
	p.Message = fmt.Sprintf("sharder: %v: %s", at.Shard, p.Message)
	return status.FromProto(p)
}

// isTransport tells a failure of the way to etcd from etcd's own refusal.
func isTransport(st *status.Status) bool {
	switch st.Code() {
	case codes.Unavailable, codes.Internal, codes.ResourceExhausted:
		return !strings.HasPrefix(st.Message(), "etcdserver:") && !strings.HasPrefix(st.Message(), "sharder:")
	}
	return false
}

// refuse is an error of our own: the request is fine, but not for these shards.
func refuse(code codes.Code, format string, args ...any) error {
	return status.Errorf(code, "sharder: "+format, args...)
}
