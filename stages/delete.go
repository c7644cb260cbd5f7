package stages

import (
	"context"
	"errors"
	"fmt"
	"strings"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/sharder/sharder/pipeline"
	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	"go.etcd.io/etcd/api/v3/mvccpb"
)

// MergeDelete makes one answer of the shards' answers to a DeleteRange: deleted
// is the sum, prev_kvs stand in key order. The shards delete each at a
// moment, and a revision, of its own: over several shards DeleteRange is not
// atomic, and a reader may see one shard's part gone and another's not. A single
// reply is passed on as it is.
func MergeDelete(_ context.Context, replies []Reply) (*Reply, error) {
	if len(replies) == 1 {
		return &replies[0], nil
	}
	if len(replies) == 0 {
		return nil, refuse(codes.Internal, "gather: no reply")
	}
	out := &pb.DeleteRangeResponse{}
	lists := make([][]*mvccpb.KeyValue, len(replies))
	headers := make([]*pb.ResponseHeader, len(replies))
	for i, r := range replies {
		part := r.Response.GetResponseDeleteRange()
		out.Deleted += part.GetDeleted()
		lists[i], headers[i] = part.GetPrevKvs(), part.GetHeader()
	}
	out.PrevKvs = pipeline.MergeSorted(compareKeys, lists...)
	out.Header = mergeHeaders(headers)
	return &Reply{Op: replies[0].Op, Response: deleteReply(out)}, nil
}

// ScatterDelete is pipeline.Scatter for DeleteRange. If a shard fails, the others
// are not cancelled: a delete that was broken off may have happened, and that
// helps nobody. When all have ended and some failed while others did not, or may
// not have, the error says for every shard which it is, with the code of the
// first failure. If no shard deleted anything for certain, its first error
// is returned untouched.
func ScatterDelete(next pipeline.Stage[Call, Reply]) pipeline.Stage[[]Call, []Reply] {
	scatter := pipeline.Scatter(func(ctx context.Context, call Call) (outcome, error) {
		r, err := next(ctx, call)
		return outcome{call.Shard, r, err}, nil
	})
	return func(ctx context.Context, calls []Call) ([]Reply, error) {
		outcomes, err := scatter(ctx, calls)
		if err != nil {
			return nil, err
		}
		if err := judge(outcomes); err != nil {
			return nil, err
		}
		replies := make([]Reply, len(outcomes))
		for i, o := range outcomes {
			replies[i] = o.reply
		}
		return replies, nil
	}
}

// outcome is how a write on one shard ended.
type outcome struct {
	shard *Shard
	reply Reply
	err   error
}

// judge makes one error of the failures among outcomes, nil if there are none.
func judge(outcomes []outcome) error {
	var failed error
	clean := true // nothing was deleted, for certain
	said := make([]string, len(outcomes))
	for i, o := range outcomes {
		n := o.reply.Response.GetResponseDeleteRange().GetDeleted()
		switch {
		case o.err == nil:
			said[i] = fmt.Sprintf("shard %q deleted %d", o.shard.Name, n)
			clean = clean && n == 0
			continue
		case untouched(o.err):
			said[i] = fmt.Sprintf("shard %q deleted nothing (%s)", o.shard.Name, reasonOf(o.err))
		default:
			said[i] = fmt.Sprintf("shard %q: outcome unknown (%s)", o.shard.Name, reasonOf(o.err))
			clean = false
		}
		if failed == nil {
			failed = o.err
		}
	}
	if failed == nil || clean || len(outcomes) == 1 {
		return failed
	}
	return refuse(status.Code(ErrorStatus(failed)), "delete range over several shards was done in part: %s", strings.Join(said, "; "))
}

func reasonOf(err error) string { return status.Convert(ErrorStatus(err)).Message() }

// untouched reports whether a write that failed with err has certainly not
// happened: it was never sent, or etcd itself refused it. A time-out, a lost
// connection or a change of leader says nothing either way.
func untouched(err error) bool {
	var early *notSent
	if errors.As(err, &early) {
		return true
	}
	st := status.Convert(ErrorStatus(err))
	if !strings.HasPrefix(st.Message(), "etcdserver:") {
		return false
	}
	switch st.Code() {
	case codes.Unavailable, codes.DeadlineExceeded, codes.Canceled, codes.Unknown, codes.DataLoss:
		return false
	}
	return true
}
