package members

import (
	"context"
	"fmt"
	"strings"
	"time"

	"github.com/sourcegraph/conc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"

	"github.com/sharder/sharder/pipeline"
	"github.com/sharder/sharder/stages"
	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
)

// statusAge is how old an answer to Status may be. Monitoring asks each sharder, and each
// answer costs a call to every shard.
const statusAge = time.Second

// Composite answers for all shards as the one etcd that clients take them for: how it is,
// and which alarms there are. It may be used from any goroutine.
type Composite struct {
	shards []*stages.Shard
	header func() *pb.ResponseHeader // nil: made of the shards' own
	turn   chan struct{}             // holds a token while nobody asks the shards

	// Guarded by the token.
	sum    *pb.StatusResponse
	summed time.Time
}

// NewComposite answers for shards. header gives the header of an answer; without it the
// header has the identity of the first shard that answers, and the largest revision of all.
func NewComposite(shards []*stages.Shard, header func() *pb.ResponseHeader) *Composite {
	c := &Composite{shards: shards, header: header, turn: make(chan struct{}, 1)}
	c.turn <- struct{}{}
	return c
}

// Alarms lists the alarms of all shards. To raise or to take back one is for the shard
// in question: that depends on which it is.
func (c *Composite) Alarms(ctx context.Context, r *pb.AlarmRequest) (*pb.AlarmResponse, error) {
	if r.Action != pb.AlarmRequest_GET {
		return nil, refuse(codes.FailedPrecondition, "an alarm is that of one etcd cluster, and there are several: name one in the metadata %s, or use sharder member alarm --shard NAME", ShardKey)
	}
	ctx, cancel := context.WithTimeout(ctx, askTimeout)
	defer cancel()
	answers, err := pipeline.Scatter(func(ctx context.Context, s *stages.Shard) (*pb.AlarmResponse, error) {
		resp, err := pb.NewMaintenanceClient(s.Conn).Alarm(ctx, r)
		if err != nil {
			return nil, &stages.ShardError{Shard: s, Err: err}
		}
		return resp, nil
	})(ctx, c.shards)
	if err != nil {
		return nil, err
	}
	sum := &pb.AlarmResponse{}
	for _, a := range answers {
		sum.Header = merged(sum.Header, a.Header)
		sum.Alarms = append(sum.Alarms, a.Alarms...)
	}
	if c.header != nil {
		sum.Header = c.header()
	}
	return sum, nil
}

// merged has the identity of the first and the larger revision of two headers.
func merged(first, other *pb.ResponseHeader) *pb.ResponseHeader {
	if first == nil {
		return proto.CloneOf(other)
	}
	first.Revision = max(first.Revision, other.GetRevision())
	return first
}

// Status is the answer of one etcd that all shards are.
func (c *Composite) Status(ctx context.Context, _ *pb.StatusRequest) (*pb.StatusResponse, error) {
	select {
	case <-c.turn:
		defer func() { c.turn <- struct{}{} }()
	case <-ctx.Done():
		return nil, status.FromContextError(ctx.Err()).Err()
	}
	if c.sum == nil || time.Since(c.summed) > statusAge {
		sum, err := c.ask(ctx)
		if err != nil {
			return nil, err
		}
		c.sum, c.summed = sum, time.Now()
	}
	out := proto.CloneOf(c.sum)
	if c.header != nil {
		out.Header = c.header()
	}
	out.Leader, out.RaftTerm = out.Header.MemberId, out.Header.RaftTerm
	return out, nil
}

// ask asks one member of every shard and sums up what they say: the lowest version, the
// sizes together, the errors with the shard's name. A shard that does not answer is an
// error in the sum; if none does there is no answer.
func (c *Composite) ask(ctx context.Context) (*pb.StatusResponse, error) {
	ctx, cancel := context.WithTimeout(ctx, askTimeout)
	defer cancel()
	answers, errs := make([]*pb.StatusResponse, len(c.shards)), make([]error, len(c.shards))
	var wg conc.WaitGroup
	for i, s := range c.shards {
		wg.Go(func() { answers[i], errs[i] = pb.NewMaintenanceClient(s.Conn).Status(ctx, &pb.StatusRequest{}) })
	}
	wg.Wait()
	sum := &pb.StatusResponse{}
	for i, s := range c.shards {
		if errs[i] != nil {
			sum.Errors = append(sum.Errors, fmt.Sprintf("shard %s: %s", s.Name, status.Convert(errs[i]).Message()))
			continue
		}
		add(sum, answers[i], s.Name)
	}
	if sum.Version == "" {
		return nil, status.Errorf(codes.Unavailable, "sharder: no shard answers: %s", strings.Join(sum.Errors, "; "))
	}
	return sum, nil
}

// add adds what one shard says.
func add(sum, r *pb.StatusResponse, shard string) {
	sum.Header = merged(sum.Header, r.Header)
	sum.Version, sum.StorageVersion = stages.LowestVersion(sum.Version, r.Version), stages.LowestVersion(sum.StorageVersion, r.StorageVersion)
	sum.DbSize += r.DbSize
	sum.DbSizeInUse += r.DbSizeInUse
	sum.DbSizeQuota += r.DbSizeQuota
	for _, e := range r.Errors {
		sum.Errors = append(sum.Errors, fmt.Sprintf("shard %s: %s", shard, e))
	}
}
