package lease

import (
	"context"
	"strings"

	"google.golang.org/grpc/metadata"

	"github.com/sharder/sharder/pipeline"
	"github.com/sharder/sharder/stages"
	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	"go.etcd.io/etcd/api/v3/mvccpb"
	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"
)

// Relay serves leases in front of one cluster. Requests and answers pass through
// as they are, with the client's metadata; leases are the cluster's own, and Relay
// writes nothing. Keep-alives of the same identity share upstream streams, and those
// of the same lease that come together share one renewal: what the client gets is
// what etcd answered to a renewal not older than its request.
type Relay struct {
	shard    *stages.Shard
	client   pb.LeaseClient
	draw     func() int64 // nil if etcd does
	renewals *renewals
	sessions sessions
}

// NewRelay makes a Relay for o.Home; of the other options it heeds Draw, KeepAliveStreams,
// MaxRenewals and Patience.
func NewRelay(o Options) *Relay {
	o = o.withDefaults()
	r := &Relay{shard: o.Home, client: leaseClient(o.Home), draw: o.Draw, renewals: newRenewals(o.Home, o)}
	r.sessions.init()
	return r
}

// Recover has nothing to do.
func (r *Relay) Recover(context.Context) error { return nil }

// Run waits until ctx is done, then ends the KeepAlive streams and waits for them.
func (r *Relay) Run(ctx context.Context) error {
	<-ctx.Done()
	r.sessions.close()
	return ctx.Err()
}

// draws is how often an id is drawn again because there is a lease of the kind already.
const draws = 4

// Grant passes through, with an id that was drawn if the options say so.
func (r *Relay) Grant(ctx context.Context, in *pb.LeaseGrantRequest) (*pb.LeaseGrantResponse, error) {
	if in.ID != 0 || r.draw == nil {
		return r.grant(ctx, in)
	}
	for try := 1; ; try++ {
		out, err := r.grant(ctx, &pb.LeaseGrantRequest{ID: r.draw(), TTL: in.TTL})
		if !isLeaseExist(err) || try == draws {
			return out, err
		}
	}
}

func (r *Relay) grant(ctx context.Context, in *pb.LeaseGrantRequest) (*pb.LeaseGrantResponse, error) {
	out, err := r.client.LeaseGrant(stages.ForwardMetadata(ctx), in)
	return out, at(r.shard, err)
}

// Revoke passes through.
func (r *Relay) Revoke(ctx context.Context, in *pb.LeaseRevokeRequest) (*pb.LeaseRevokeResponse, error) {
	out, err := r.client.LeaseRevoke(stages.ForwardMetadata(ctx), in)
	return out, at(r.shard, err)
}

// TimeToLive passes through.
func (r *Relay) TimeToLive(ctx context.Context, in *pb.LeaseTimeToLiveRequest) (*pb.LeaseTimeToLiveResponse, error) {
	out, err := r.client.LeaseTimeToLive(stages.ForwardMetadata(ctx), in)
	return out, at(r.shard, err)
}

// Leases passes through.
func (r *Relay) Leases(ctx context.Context, in *pb.LeaseLeasesRequest) (*pb.LeaseLeasesResponse, error) {
	out, err := r.client.LeaseLeases(stages.ForwardMetadata(ctx), in)
	return out, at(r.shard, err)
}

// KeepAlive serves one client stream.
func (r *Relay) KeepAlive(stream pb.Lease_LeaseKeepAliveServer) error {
	key, md := identityOf(stream.Context())
	g := r.renewals.enter(key, md)
	return stages.ErrorStatus(r.sessions.serve(stream, relayAsker{g, g.leader()}))
}

// Attach has nothing to do: the cluster's leases are the clients'.
func (r *Relay) Attach() pipeline.Middleware[stages.Call, stages.Reply] {
	return func(next pipeline.Stage[stages.Call, stages.Reply]) pipeline.Stage[stages.Call, stages.Reply] {
		return next
	}
}

// TranslateKV gives back what it gets.
func (r *Relay) TranslateKV(_ context.Context, kvs []*mvccpb.KeyValue) ([]*mvccpb.KeyValue, error) {
	return kvs, nil
}

// TranslateEvents gives back what it gets.
func (r *Relay) TranslateEvents(_ context.Context, events []*mvccpb.Event) []*mvccpb.Event {
	return events
}

// identityKeys are the metadata that decide what etcd answers to a keep-alive: who
// asks, and whether a member without a leader may answer.
var identityKeys = []string{rpctypes.TokenFieldNameGRPC, rpctypes.TokenFieldNameSwagger, rpctypes.MetadataRequireLeaderKey}

// identityOf gives what tells one client's identity from another's, and the metadata
// to send for it.
func identityOf(ctx context.Context) (key string, md metadata.MD) {
	in, _ := metadata.FromIncomingContext(ctx)
	md = metadata.MD{}
	var b strings.Builder
	for _, k := range identityKeys {
		for _, v := range in.Get(k) {
			md.Append(k, v)
			b.WriteString(k + "\x00" + v + "\x00")
		}
	}
	return b.String(), md
}

// relayAsker passes ids through.
type relayAsker struct {
	group  *group
	leader context.Context
}

func (a relayAsker) leave() { a.group.leave() }

func (a relayAsker) lost() context.Context { return a.leader }

func (a relayAsker) ask(ctx context.Context, id int64) question {
	q := relayQuestion{group: a.group}
	q.renewal, q.err = a.group.join(ctx, id)
	return q
}

type relayQuestion struct {
	group   *group
	renewal *renewal
	err     error
}

func (q relayQuestion) abandon() {
	if q.renewal != nil {
		q.group.abandon(q.renewal)
	}
}

func (q relayQuestion) answer(ctx context.Context) (*pb.LeaseKeepAliveResponse, error) {
	if q.err != nil {
		return nil, q.err
	}
	return q.group.wait(ctx, q.renewal)
}
