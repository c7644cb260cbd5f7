package importer

import (
	"context"
	"math/rand/v2"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
)

// retry repeats calls that a cluster could not serve at the moment. All that it is used
// for may be repeated after an unknown outcome.
type retry struct {
	patience time.Duration // how long a call is repeated
	call     time.Duration // bounds one try
}

// do calls f until it succeeds, fails for good, or patience or ctx ends. It returns
// f's own last error, except that ctx's cause goes before one that ctx caused.
func (r retry) do(ctx context.Context, f func(context.Context) error) error {
	deadline := time.Now().Add(r.patience)
	for pause := 20 * time.Millisecond; ; pause = min(2*pause, time.Second) {
		err := r.once(ctx, f)
		if err == nil {
			return nil
		}
		if ctx.Err() != nil {
			return context.Cause(ctx)
		}
		if !passing(err) || time.Now().After(deadline) {
			return err
		}
		select {
		case <-time.After(pause/2 + rand.N(pause)):
		case <-ctx.Done():
			return context.Cause(ctx)
		}
	}
}

func (r retry) once(ctx context.Context, f func(context.Context) error) error {
	ctx, cancel := context.WithTimeout(ctx, r.call)
	defer cancel()
	return f(ctx)
}

// passing tells failures that may be over soon from answers.
func passing(err error) bool {
	switch st := status.Convert(err); st.Code() {
	case codes.Unavailable, codes.DeadlineExceeded, codes.Aborted:
		return true
	case codes.ResourceExhausted:
		return st.Message() == "etcdserver: too many requests"
	default:
		return false
	}
}
