package order

import (
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/sharder/sharder/stages"
	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"
)

// isEtcd reports whether err is, or wraps, one of etcd's own errors.
func isEtcd(err, want error) bool {
	if err == nil {
		return false
	}
	have, w := status.Convert(stages.ErrorStatus(err)), status.Convert(want)
	return have.Code() == w.Code() && have.Message() == w.Message()
}

// refuse is an error of sharder's own.
func refuse(code codes.Code, format string, args ...any) error {
	return status.Errorf(code, "sharder: "+format, args...)
}

// outcomeErrors are etcd's errors that a transaction over several shards can end with.
var outcomeErrors = []error{rpctypes.ErrGRPCKeyNotFound, rpctypes.ErrGRPCLeaseNotFound, rpctypes.ErrGRPCCompacted, rpctypes.ErrGRPCFutureRev}

// errorText is the form of one of etcd's errors in an Outcome.
func errorText(err error) string { return status.Convert(stages.ErrorStatus(err)).Message() }

// etcdError is the error that a text in an Outcome stands for.
func etcdError(text string) error {
	for _, err := range outcomeErrors {
		if errorText(err) == text {
			return err
		}
	}
	return refuse(codes.Unknown, "%s", text)
}
