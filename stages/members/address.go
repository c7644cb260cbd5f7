package members

import (
	"context"
	"fmt"
	"slices"
	"strconv"
	"strings"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"

	"github.com/sharder/sharder/stages"
	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
)

// What a client says in the metadata of a call that is about one etcd cluster, or one member
// of it.
const (
	// ShardKey is the name of a shard, or stages.OrderName for the order cluster.
	ShardKey = "sharder-shard"
	// MemberKey is a member: its endpoint (host:port), its id in hex, its name, or
	// LeaderName.
	MemberKey = "sharder-member"
)

// LeaderName is the member that leads, whichever it is.
const LeaderName = "leader"

// identityKeys say who the client is. Over several shards that means nothing to a shard.
var identityKeys = []string{"token", "authorization"}

// target is what a call is about.
type target struct {
	cluster *Cluster // nil: nobody was named, and there are several
	member  string   // as the client has it; empty if it named none
	said    bool     // it named a cluster, a member, or both
	// ctx is for calls to the cluster: the client's, with what of its metadata is for the
	// cluster to see.
	ctx context.Context
}

// target reads what the client of ctx has named.
func (m *Maintenance) target(ctx context.Context) (t target, err error) {
	in, _ := metadata.FromIncomingContext(ctx)
	in = in.Copy()
	shard, err := one(in, ShardKey)
	if err == nil {
		t.member, err = one(in, MemberKey)
	}
	if err != nil {
		return t, err
	}
	t.said = shard != "" || t.member != ""
	in.Delete(ShardKey)
	in.Delete(MemberKey)
	if !m.alone() {
		for _, key := range identityKeys {
			in.Delete(key)
		}
	}
	t.ctx = stages.ForwardMetadata(metadata.NewIncomingContext(ctx, in))
	switch i := slices.IndexFunc(m.clusters, func(c *Cluster) bool { return c.Shard.Name == shard }); {
	case shard == "" && m.alone():
		t.cluster = m.clusters[0]
	case shard == "" && t.member != "":
		return t, refuse(codes.InvalidArgument, "a member is named, and no shard of it; name one in the metadata %s: %s", ShardKey, m.names())
	case shard == "":
	case i < 0:
		return t, refuse(codes.NotFound, "there is no shard %q; there is %s", shard, m.names())
	default:
		t.cluster = m.clusters[i]
	}
	return t, nil
}

// one is the only value of a key, empty if there is none.
func one(md metadata.MD, key string) (string, error) {
	switch values := md.Get(key); len(values) {
	case 0:
		return "", nil
	case 1:
		return values[0], nil
	default:
		return "", refuse(codes.InvalidArgument, "the metadata %s is there %d times", key, len(values))
	}
}

// names lists the clusters.
func (m *Maintenance) names() string {
	all := make([]string, len(m.clusters))
	for i, c := range m.clusters {
		all[i] = c.Shard.Name
	}
	return strings.Join(all, ", ")
}

// unnamed refuses a call that is about one cluster, which nobody has named.
func (m *Maintenance) unnamed(method string) error {
	command := map[string]string{
		pb.Maintenance_Snapshot_FullMethodName: "snapshot", pb.Maintenance_HashKV_FullMethodName: "hashkv", pb.Maintenance_MoveLeader_FullMethodName: "move-leader",
		pb.Maintenance_Alarm_FullMethodName: "alarm",
	}[method]
	if command != "" {
		command = fmt.Sprintf(", or use sharder member %s --shard NAME", command)
	}
	return refuse(codes.FailedPrecondition, "%s is about one etcd cluster, and there are several: name one in the metadata %s (%s)%s", method, ShardKey, m.names(), command)
}

// resolve finds the member that the client has named.
func (t target) resolve() (stages.Want, error) {
	if t.member == LeaderName {
		return LeaderNow(t.ctx, t.cluster)
	}
	states := t.cluster.known(t.ctx)
	id, notHex := strconv.ParseUint(strings.TrimPrefix(t.member, "0x"), 16, 64)
	for _, s := range states {
		if s.Endpoint == withoutScheme(t.member) || notHex == nil && s.ID == id && id != 0 {
			return stages.Want{Member: s.Endpoint}, nil
		}
	}
	list, err := t.cluster.list(t.ctx)
	if err != nil {
		return stages.Want{}, err
	}
	i := slices.IndexFunc(list, func(m *pb.Member) bool { return m.Name == t.member || notHex == nil && m.ID == id })
	if i < 0 {
		return stages.Want{}, refuse(codes.NotFound, "%s has no member %q; there is %s", calling(t.cluster.Shard), t.member, described(list, states))
	}
	for _, s := range states {
		if s.ID == list[i].ID {
			return stages.Want{Member: s.Endpoint}, nil
		}
	}
	return stages.Want{}, refuse(codes.FailedPrecondition, "%s has the member %q, and sharder none of its addresses among the endpoints (%s), or it has not answered yet",
		calling(t.cluster.Shard), t.member, described(list, states))
}

// described lists members for people: those of the cluster, each with the endpoint at which
// sharder reaches it.
func described(list []*pb.Member, states []State) string {
	all := make([]string, 0, len(list))
	for _, m := range list {
		at := "no endpoint"
		for _, s := range states {
			if s.ID == m.ID {
				at = s.Endpoint
			}
		}
		all = append(all, fmt.Sprintf("%s (%x, %s)", m.Name, m.ID, at))
	}
	return strings.Join(all, ", ")
}

// calling is how a cluster is called in a text.
func calling(s *stages.Shard) string {
	if s.Number == stages.OrderCluster {
		return "the order cluster"
	}
	return "shard " + s.Name
}

// refuse is an error of sharder's own.
func refuse(code codes.Code, format string, args ...any) error {
	return status.Errorf(code, "sharder: "+format, args...)
}
