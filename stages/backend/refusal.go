package backend

import (
	"strings"
	"time"

	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"
	"google.golang.org/grpc/status"
)

const (
	// learnerPause is how long a member that does not tell what it is, is taken for a learner
	// after it has refused a call for that.
	learnerPause = 30 * time.Second
	// overloadPause is how long a member is spared that has refused a call for having too much
	// to do.
	overloadPause = time.Second
)

// refused reports whether an error is the member's refusal of a call that another member
// may well take, before it has done anything about it. Then it is asked last for a while.
//
// A learner refuses nearly everything. A member refuses what writes while it has a lot of
// what the cluster has decided still to apply, as it does when it comes back from a pause.
func (m *member) refused(err error) bool {
	pause := time.Duration(0)
	switch {
	case isLearner(err):
		pause = learnerPause
	case isOverloaded(err):
		pause = overloadPause
	default:
		return false
	}
	m.change(func(c *condition) { c.avoid = time.Now().Add(pause) })
	return true
}

// isLearner reports whether a member refused what it can't do as a learner.
func isLearner(err error) bool { return sameStatus(err, rpctypes.ErrGRPCNotSupportedForLearner) }

// isOverloaded reports whether a member refused for having too much to do. etcd sends the
// text with one code or another.
func isOverloaded(err error) bool {
	s, ok := status.FromError(err)
	return ok && err != nil && strings.HasPrefix(s.Message(), rpctypes.ErrorDesc(rpctypes.ErrGRPCRequestTooManyRequests))
}
