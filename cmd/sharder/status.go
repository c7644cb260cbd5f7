package main

import (
	"context"
	"fmt"
	"strconv"
	"strings"
	"time"

	"github.com/sourcegraph/conc"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/sharder/sharder/pipeline"
	"github.com/sharder/sharder/stages"
	"github.com/sharder/sharder/stages/order"
	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
)

const (
	// statusAge is how old an answer to Status may be. Monitoring asks each sharder, and
	// each answer costs a call to every shard.
	statusAge = time.Second
	// statusTimeout bounds the call to one shard.
	statusTimeout = 2 * time.Second
)

// statusTeller serves the services that are not in chains.go for shards with one order:
// Maintenance.Status and the list of alarms as one etcd would answer them, and a refusal
// with a reason of all others. Its handle may be called from any goroutine.
type statusTeller struct {
	shards []*stages.Shard
	order  *order.Order
	turn   chan struct{} // holds a token while nobody asks the shards

	// Guarded by the token.
	sum    *pb.StatusResponse
	summed time.Time
}

func newStatusTeller(shards []*stages.Shard, o *order.Order) *statusTeller {
	t := &statusTeller{shards: shards, order: o, turn: make(chan struct{}, 1)}
	t.turn <- struct{}{}
	return t
}

// handle is a grpc.StreamHandler for services that are not registered.
func (t *statusTeller) handle(_ any, stream grpc.ServerStream) error {
	switch method, _ := grpc.MethodFromServerStream(stream); method {
	case pb.Maintenance_Status_FullMethodName:
		return answerOne(stream, &pb.StatusRequest{}, t.status)
	case pb.Maintenance_Alarm_FullMethodName:
		return answerOne(stream, &pb.AlarmRequest{}, t.alarms)
	default:
		return refuseOrdered(method)
	}
}

// answerOne serves one unary call that came as a stream.
func answerOne[I, O any](stream grpc.ServerStream, req I, serve func(context.Context, I) (O, error)) error {
	if err := stream.RecvMsg(req); err != nil {
		return err
	}
	resp, err := serve(stream.Context(), req)
	if err != nil {
		return stages.ErrorStatus(err)
	}
	return stream.SendMsg(resp)
}

// alarms lists the alarms of all shards. To raise or to take back one is for the shard
// in question: that depends on which it is.
func (t *statusTeller) alarms(ctx context.Context, r *pb.AlarmRequest) (*pb.AlarmResponse, error) {
	if r.Action != pb.AlarmRequest_GET {
		return nil, refuseOrdered(pb.Maintenance_Alarm_FullMethodName)
	}
	ctx, cancel := context.WithTimeout(ctx, statusTimeout)
	defer cancel()
	answers, err := pipeline.Scatter(func(ctx context.Context, s *stages.Shard) (*pb.AlarmResponse, error) {
		resp, err := pb.NewMaintenanceClient(s.Conn).Alarm(ctx, r)
		if err != nil {
			return nil, &stages.ShardError{Shard: s, Err: err}
		}
		return resp, nil
	})(ctx, t.shards)
	if err != nil {
		return nil, err
	}
	sum := &pb.AlarmResponse{Header: t.order.Header(t.order.Replayed().Revision)}
	for _, a := range answers {
		sum.Alarms = append(sum.Alarms, a.Alarms...)
	}
	return sum, nil
}

// refuseOrdered says why a method is not served, and what to use.
func refuseOrdered(method string) error {
	remedy := "ask the etcd cluster in question directly"
	if strings.HasPrefix(method, "/etcdserverpb.Auth/") {
		remedy = "sharder keeps no users of its own; let clients reach it through a network that you trust"
	}
	return status.Errorf(codes.Unimplemented, "sharder: %s is not served over several etcd clusters: %s", method, remedy)
}

// status is the answer of one etcd that all shards are.
func (t *statusTeller) status(ctx context.Context, _ *pb.StatusRequest) (*pb.StatusResponse, error) {
	select {
	case <-t.turn:
		defer func() { t.turn <- struct{}{} }()
	case <-ctx.Done():
		return nil, status.FromContextError(ctx.Err()).Err()
	}
	if t.sum == nil || time.Since(t.summed) > statusAge {
		sum, err := t.ask(ctx)
		if err != nil {
			return nil, err
		}
		t.sum, t.summed = sum, time.Now()
	}
	header := t.order.Header(t.order.Replayed().Revision)
	return &pb.StatusResponse{
		Header: header, Leader: header.MemberId, RaftTerm: header.RaftTerm,
		Version: t.sum.Version, StorageVersion: t.sum.StorageVersion,
		DbSize: t.sum.DbSize, DbSizeInUse: t.sum.DbSizeInUse, DbSizeQuota: t.sum.DbSizeQuota,
		Errors: t.sum.Errors,
	}, nil
}

// ask asks one member of every shard and sums up what they say: the lowest version, the
// sizes together, the errors with the shard's name. A shard that does not answer is an
// error in the sum; if none does there is no answer.
func (t *statusTeller) ask(ctx context.Context) (*pb.StatusResponse, error) {
	ctx, cancel := context.WithTimeout(ctx, statusTimeout)
	defer cancel()
	answers, errs := make([]*pb.StatusResponse, len(t.shards)), make([]error, len(t.shards))
	var wg conc.WaitGroup
	for i, s := range t.shards {
		wg.Go(func() { answers[i], errs[i] = pb.NewMaintenanceClient(s.Conn).Status(ctx, &pb.StatusRequest{}) })
	}
	wg.Wait()
	sum := &pb.StatusResponse{}
	for i, s := range t.shards {
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
	sum.Version, sum.StorageVersion = lowest(sum.Version, r.Version), lowest(sum.StorageVersion, r.StorageVersion)
	sum.DbSize += r.DbSize
	sum.DbSizeInUse += r.DbSizeInUse
	sum.DbSizeQuota += r.DbSizeQuota
	for _, e := range r.Errors {
		sum.Errors = append(sum.Errors, fmt.Sprintf("shard %s: %s", shard, e))
	}
}

// lowest is the lower one of two versions; an empty one does not count.
func lowest(a, b string) string {
	switch {
	case a == "":
		return b
	case b == "" || !lower(b, a):
		return a
	}
	return b
}

// lower reports whether version a is before b, number by number. What comes behind a "-"
// does not count.
func lower(a, b string) bool {
	a, _, _ = strings.Cut(a, "-")
	b, _, _ = strings.Cut(b, "-")
	as, bs := strings.Split(a, "."), strings.Split(b, ".")
	for i := range min(len(as), len(bs)) {
		x, _ := strconv.Atoi(as[i])
		y, _ := strconv.Atoi(bs[i])
		if x != y {
			return x < y
		}
	}
	return len(as) < len(bs)
}
