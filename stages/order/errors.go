package order

import (
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/sharder/sharder/stages"
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
