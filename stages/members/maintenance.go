package members

import (
	"context"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/types/known/emptypb"

	"github.com/sharder/sharder/stages"
	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"
)

// Maintenance serves the calls of etcd's Maintenance service, each by the member that it is
// for: the one that the client has named in the metadata ([ShardKey], [MemberKey]), or one
// that is chosen by what the call is about. It never leaves that to chance.
//
// Its methods make handlers, for grpc.UnknownServiceHandler. Messages pass unread, with the
// client's metadata, and the member's header, status and trailer come back. Wait is called
// when the gRPC server has stopped.
type Maintenance struct {
	clusters []*Cluster // shards, in their order; then the order cluster, if there is one
	shards   int        // how many of them are shards
	relays   map[*Cluster]*stages.Relay
}

// NewMaintenance serves clusters, of which those that are shards come first. A single one
// stands for itself: it need not be named, and sees who the client is.
func NewMaintenance(clusters ...*Cluster) *Maintenance {
	m := &Maintenance{clusters: clusters, relays: make(map[*Cluster]*stages.Relay)}
	for _, c := range clusters {
		m.relays[c] = stages.NewRelay(c.Shard)
		if c.Shard.Number != stages.OrderCluster {
			m.shards++
		}
	}
	return m
}

// Wait returns when the last stream's pump has ended.
func (m *Maintenance) Wait() {
	for _, r := range m.relays {
		r.Wait()
	}
}

// alone tells whether there is one cluster only.
func (m *Maintenance) alone() bool { return len(m.clusters) == 1 }

// Unary serves a unary call by one member of one cluster.
func (m *Maintenance) Unary(otherwise Choice) grpc.StreamHandler {
	return func(_ any, client grpc.ServerStream) error {
		t, err := m.named(client)
		if err != nil {
			return stages.ErrorStatus(err)
		}
		req := &emptypb.Empty{} // and all its unknown fields
		if err := client.RecvMsg(req); err != nil {
			return err
		}
		reply, err := m.call(t, otherwise, client, req)
		if err != nil {
			return stages.ErrorStatus(err)
		}
		return client.SendMsg(reply)
	}
}

// Stream serves a call that is answered by a stream, by one member of one cluster.
func (m *Maintenance) Stream(otherwise Choice) grpc.StreamHandler {
	return func(_ any, client grpc.ServerStream) error {
		t, err := m.named(client)
		if err != nil {
			return stages.ErrorStatus(err)
		}
		w, err := t.choose(otherwise)
		if err != nil {
			return stages.ErrorStatus(err)
		}
		return m.relays[t.cluster].Pass(stages.Ask(t.ctx, w), client)
	}
}

// Named serves a call by one of two: by whole if the client has named neither a cluster nor a
// member.
func (m *Maintenance) Named(whole, one grpc.StreamHandler) grpc.StreamHandler {
	return func(srv any, client grpc.ServerStream) error {
		switch t, err := m.target(client.Context()); {
		case err != nil:
			return err
		case !t.said:
			return whole(srv, client)
		default:
			return one(srv, client)
		}
	}
}

// named is the target of a call that needs a cluster.
func (m *Maintenance) named(client grpc.ServerStream) (target, error) {
	t, err := m.target(client.Context())
	if err == nil && t.cluster == nil {
		method, _ := grpc.MethodFromServerStream(client)
		err = m.unnamed(method)
	}
	return t, err
}

// choose is the member that was named, or else the choice.
func (t target) choose(otherwise Choice) (stages.Want, error) {
	if t.member != "" {
		return t.resolve()
	}
	return otherwise(t.ctx, t.cluster)
}

const (
	// leaderTries is how often a call for the leader is made, if whoever was taken for it says
	// that it is not: it has done nothing then.
	leaderTries = 20
	// leaderPause is the time between two of them.
	leaderPause = 100 * time.Millisecond
)

// call makes the call, on the member that is chosen. What fails there is not made elsewhere,
// but for what only the leader does, and a Status that nobody in particular was asked for: to
// those who look after a cluster, a member that has just died is no reason for no answer.
func (m *Maintenance) call(t target, otherwise Choice, client grpc.ServerStream, req *emptypb.Empty) (reply *emptypb.Empty, err error) {
	method, _ := grpc.MethodFromServerStream(client)
	for range leaderTries {
		var w stages.Want
		if w, err = t.choose(otherwise); err != nil {
			return nil, err
		}
		reply, err = m.relays[t.cluster].Ask(stages.Ask(t.ctx, w), client, req)
		if t.member == "" && method == pb.Maintenance_Status_FullMethodName && status.Code(err) == codes.Unavailable && w.Member != "" {
			return m.relays[t.cluster].Ask(t.ctx, client, req)
		}
		if t.member != "" || !notLeader(err) || !sleep(t.ctx, leaderPause) {
			break
		}
	}
	return reply, err
}

// notLeader tells whether a member has refused what only the leader does.
func notLeader(err error) bool {
	if err == nil {
		return false
	}
	have, want := status.Convert(stages.ErrorStatus(err)), status.Convert(rpctypes.ErrGRPCNotLeader)
	return have.Code() == want.Code() && have.Message() == want.Message()
}

// refusal tells whether etcd has refused a call for the client's sake, before it did
// anything.
func refusal(err error) bool {
	switch status.Code(stages.ErrorStatus(err)) {
	case codes.InvalidArgument, codes.PermissionDenied, codes.Unauthenticated, codes.Canceled:
		return true
	}
	return false
}

// ended tells why there is no point in going on.
func ended(ctx context.Context) error {
	if ctx.Err() == nil {
		return nil
	}
	return status.FromContextError(ctx.Err()).Err()
}
