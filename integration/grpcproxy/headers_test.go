package grpcproxy_test

import (
	"context"
	"testing"

	"google.golang.org/grpc/metadata"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"
	"go.etcd.io/etcd/server/v3/etcdserver/api/v3election/v3electionpb"
	"go.etcd.io/etcd/server/v3/etcdserver/api/v3lock/v3lockpb"
)

// headed is what every answer has.
type headed interface{ GetHeader() *pb.ResponseHeader }

// Every answer has etcd's header: cluster, member, term and revision.
func TestEveryAnswerHasEtcdsHeader(t *testing.T) {
	probe{
		fault: "answers that it makes up itself have none: members, reads in transactions",
		want:  []string{"put: revision 2", "lease: revision 4", "members: revision 0", "lock: revision 7"},
		run: func(ctx context.Context, d *door) error {
			conn := d.conn()
			kv, lease := pb.NewKVClient(conn), pb.NewLeaseClient(conn)
			say := func(what string, m headed, err error) {
				if err != nil {
					d.say("%s: %s", what, failure(err))
					return
				}
				d.say("%s: %s", what, d.header(m.GetHeader()))
			}
			put, err := kv.Put(ctx, &pb.PutRequest{Key: []byte("k"), Value: []byte("v")})
			say("put", put, err)
			txn, err := kv.Txn(ctx, &pb.TxnRequest{Success: puts(1, "k", "")})
			say("transaction", txn, err)
			del, err := kv.DeleteRange(ctx, &pb.DeleteRangeRequest{Key: []byte("k")})
			say("delete", del, err)
			for _, serializable := range []bool{false, true, true} {
				r, err := kv.Range(ctx, &pb.RangeRequest{Key: []byte("k"), Serializable: serializable})
				say("read", r, err)
			}
			read, err := kv.Txn(ctx, &pb.TxnRequest{Success: []*pb.RequestOp{{Request: &pb.RequestOp_RequestRange{RequestRange: one("k")}}}})
			say("read in a transaction", read, err)
			r, err := kv.Range(ctx, &pb.RangeRequest{Key: []byte("k"), Serializable: true})
			say("read again", r, err)
			grant, err := lease.LeaseGrant(ctx, &pb.LeaseGrantRequest{ID: 7, TTL: 60})
			say("lease", grant, err)
			ttl, err := lease.LeaseTimeToLive(ctx, &pb.LeaseTimeToLiveRequest{ID: 7})
			say("time to live", ttl, err)
			ttl, err = lease.LeaseTimeToLive(ctx, &pb.LeaseTimeToLiveRequest{ID: 99})
			say("time to live of none", ttl, err)
			leases, err := lease.LeaseLeases(ctx, &pb.LeaseLeasesRequest{})
			say("leases", leases, err)
			revoke, err := lease.LeaseRevoke(ctx, &pb.LeaseRevokeRequest{ID: 7})
			say("end of a lease", revoke, err)
			compact, err := kv.Compact(ctx, &pb.CompactionRequest{Revision: 3})
			say("compaction", compact, err)
			for _, key := range []string{"a", "b"} {
				put, err = kv.Put(ctx, &pb.PutRequest{Key: []byte(key)})
				say("put", put, err)
			}
			members, err := pb.NewClusterClient(conn).MemberList(ctx, &pb.MemberListRequest{Linearizable: true})
			say("members", members, err)
			st, err := pb.NewMaintenanceClient(conn).Status(ctx, &pb.StatusRequest{})
			say("status", st, err)
			auth, err := pb.NewAuthClient(conn).AuthStatus(ctx, &pb.AuthStatusRequest{})
			say("status of auth", auth, err)
			lock, err := v3lockpb.NewLockClient(conn).Lock(ctx, &v3lockpb.LockRequest{Name: []byte("lock")})
			say("lock", lock, err)
			unlock, err := v3lockpb.NewLockClient(conn).Unlock(ctx, &v3lockpb.UnlockRequest{Key: lock.GetKey()})
			say("unlock", unlock, err)
			won, err := v3electionpb.NewElectionClient(conn).Campaign(ctx, &v3electionpb.CampaignRequest{Name: []byte("office")})
			say("election", won, err)
			return nil
		},
	}.check(t)
}

// What a client says of itself arrives: etcd counts requests by the version that the client tells
// it.
func TestWhatAClientSaysOfItselfArrives(t *testing.T) {
	probe{
		fault: "it is dropped: etcd counts its proxy's own version",
		want: []string{
			"all seven unary requests are of 9.9-probe: true", "1 streams of 9.9-probe",
		},
		run: func(ctx context.Context, d *door) error {
			conn := d.conn()
			version := metadata.AppendToOutgoingContext(ctx, rpctypes.MetadataClientAPIVersionKey, "9.9-probe")
			for range 4 {
				if _, err := pb.NewKVClient(conn).Range(version, one("k")); err != nil {
					return err
				}
			}
			_, err := pb.NewLeaseClient(conn).LeaseLeases(version, &pb.LeaseLeasesRequest{})
			if err != nil {
				return err
			}
			if _, err := pb.NewAuthClient(conn).AuthStatus(version, &pb.AuthStatusRequest{}); err != nil {
				return err
			}
			if _, err := pb.NewMaintenanceClient(conn).Status(version, &pb.StatusRequest{}); err != nil {
				return err
			}
			s, err := pb.NewMaintenanceClient(conn).Snapshot(version, &pb.SnapshotRequest{})
			if err != nil {
				return err
			}
			if _, err := s.Recv(); err != nil {
				return err
			}
			f := d.behindFigures()
			// A snapshot may take a question which member it is to be of.
			d.say("all seven unary requests are of 9.9-probe: %v", f.sum("etcd_server_client_requests_total", `client_api_version="9.9-probe"`, `type="unary"`) >= 7)
			d.say("%v streams of 9.9-probe", f.sum("etcd_server_client_requests_total", `client_api_version="9.9-probe"`, `type="stream"`))
			return nil
		},
	}.check(t)
}
