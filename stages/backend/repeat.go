package backend

import (
	"strings"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
)

// reads lists the calls that change nothing, whatever they carry. Authenticate is
// among them: doing it twice gives a second token and takes nothing away.
var reads = map[string]bool{
	pb.KV_Range_FullMethodName:              true,
	pb.KV_RangeStream_FullMethodName:        true,
	pb.Lease_LeaseTimeToLive_FullMethodName: true,
	pb.Lease_LeaseLeases_FullMethodName:     true,
	pb.Cluster_MemberList_FullMethodName:    true,
	pb.Maintenance_Status_FullMethodName:    true,
	pb.Auth_Authenticate_FullMethodName:     true,
	pb.Auth_AuthStatus_FullMethodName:       true,
	pb.Auth_UserGet_FullMethodName:          true,
	pb.Auth_UserList_FullMethodName:         true,
	pb.Auth_RoleGet_FullMethodName:          true,
	pb.Auth_RoleList_FullMethodName:         true,
}

// repeatable reports whether a request may be executed twice.
func repeatable(method string, args any) bool {
	if reads[method] {
		return true
	}
	txn, ok := args.(*pb.TxnRequest)
	return ok && onlyReads(txn)
}

// local reports whether a member answers a request from what it has itself, and need not
// have heard of what others were told before.
func local(method string, args any) bool {
	switch r := args.(type) {
	case *pb.RangeRequest:
		return r.Serializable && method == pb.KV_Range_FullMethodName
	case *pb.TxnRequest:
		return onlyReads(r) && onlyLocal(r)
	}
	return false
}

// onlyLocal reports whether all reads of the transaction are serializable.
func onlyLocal(txn *pb.TxnRequest) bool {
	for _, branch := range [][]*pb.RequestOp{txn.GetSuccess(), txn.GetFailure()} {
		for _, op := range branch {
			if r := op.GetRequestRange(); r != nil && !r.Serializable {
				return false
			}
			if t := op.GetRequestTxn(); t != nil && !onlyLocal(t) {
				return false
			}
		}
	}
	return true
}

// onlyReads reports whether no branch of the transaction holds a write.
func onlyReads(txn *pb.TxnRequest) bool {
	for _, branch := range [][]*pb.RequestOp{txn.GetSuccess(), txn.GetFailure()} {
		for _, op := range branch {
			switch r := op.GetRequest().(type) {
			case *pb.RequestOp_RequestRange:
			case *pb.RequestOp_RequestTxn:
				if !onlyReads(r.RequestTxn) {
					return false
				}
			default:
				return false
			}
		}
	}
	return true
}

// answeredByEtcd reports whether the error is an answer of the server, not a
// failure on the way to it. Every Unavailable that etcd itself sends carries its
// prefix; every other code can't come from a broken transport here.
func answeredByEtcd(err error) bool {
	s, ok := status.FromError(err)
	return ok && (s.Code() != codes.Unavailable || strings.HasPrefix(s.Message(), "etcdserver:"))
}
