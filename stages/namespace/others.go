package namespace

import (
	"context"
	"strings"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
)

// allowed are the calls outside KV, Watch and Lease that show nothing of anybody's keys and
// change nothing.
var allowed = map[string]bool{
	pb.Cluster_MemberList_FullMethodName: true,
	pb.Maintenance_Status_FullMethodName: true,
	pb.Auth_Authenticate_FullMethodName:  true,
}

// Others lets a handler for the services that aren't registered have what is allowed in a
// namespace, and refuses the rest: also what nobody knows.
func Others(below grpc.StreamHandler) grpc.StreamHandler {
	return func(srv any, stream grpc.ServerStream) error {
		method, _ := grpc.MethodFromServerStream(stream)
		switch {
		case addressed(stream.Context()):
			return status.Errorf(codes.PermissionDenied, "sharder: %s: in a namespace no cluster and no member can be named: "+
				"clients have nothing to do there; use an endpoint without a namespace", method)
		case allowed[method]:
			return below(srv, stream)
		case method == pb.Maintenance_Alarm_FullMethodName:
			return alarms(below, srv, stream)
		}
		return Refusal(method)
	}
}

// addressed tells whether a call says by its metadata which cluster, or which member, is to
// answer it: the answer would lead there, past the namespace.
func addressed(ctx context.Context) bool {
	md, _ := metadata.FromIncomingContext(ctx)
	for key := range md {
		if strings.HasPrefix(key, "sharder-") {
			return true
		}
	}
	return false
}

// alarms lets a client see which alarms are raised, as health checks do, and change none.
func alarms(below grpc.StreamHandler, srv any, stream grpc.ServerStream) error {
	r := &pb.AlarmRequest{}
	if err := stream.RecvMsg(r); err != nil {
		return err
	}
	if r.Action != pb.AlarmRequest_GET {
		return Refusal(pb.Maintenance_Alarm_FullMethodName)
	}
	return below(srv, &again{ServerStream: stream, first: &pb.AlarmRequest{MemberID: r.MemberID, Alarm: r.Alarm}})
}

// again is a stream of which the first message was read, and is to be read again.
type again struct {
	grpc.ServerStream
	first proto.Message
}

// RecvMsg gives the first message once, then what comes.
func (s *again) RecvMsg(m any) error {
	if s.first == nil {
		return s.ServerStream.RecvMsg(m)
	}
	wire, err := proto.Marshal(s.first)
	s.first = nil
	if err != nil {
		return err
	}
	return proto.Unmarshal(wire, m.(proto.Message)) // gRPC's codec takes nothing else either
}

// everybodys says of what belongs to all namespaces why it is refused, and what to use.
// The longest beginning of a method's name counts.
var everybodys = map[string]string{
	pb.KV_Compact_FullMethodName: "there is one history for all; let it be compacted from time to time (auto_compaction_retention of [order], or --auto-compaction-retention of etcd), or by an endpoint without a namespace",
	pb.Maintenance_Snapshot_FullMethodName: "it has the keys of all; read those of the namespace at one revision (etcdctl get --prefix \"\" --rev), " +
		"or take the snapshot at an endpoint without a namespace",
	pb.Maintenance_Hash_FullMethodName: "it is made of the keys of all; ask an endpoint without a namespace",
	"/etcdserverpb.Maintenance/":       "it concerns the cluster and all who use it; use an endpoint without a namespace",
	"/etcdserverpb.Cluster/":           "the members are those of all; change them at an endpoint without a namespace",
	"/etcdserverpb.Auth/":              "users and roles are those of all; manage them at an endpoint without a namespace. Authenticate is served",
}

// Refusal is the error for a method that has no place in a namespace.
func Refusal(method string) error {
	why, best := "nobody knows whether it stays inside; use an endpoint without a namespace", 0
	for beginning, text := range everybodys {
		if strings.HasPrefix(method, beginning) && len(beginning) > best {
			why, best = text, len(beginning)
		}
	}
	return status.Errorf(codes.PermissionDenied, "sharder: %s is refused in a namespace: %s", method, why)
}
