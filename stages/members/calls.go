package members

import (
	"context"
	"errors"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/sharder/sharder/stages"
	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
)

// errLost is why a registration ends of which etcd knows nothing any more.
var errLost = errors.New("its lease has ended")

// grant gets a lease, and the time it has by etcd's word.
func (r *Registry) grant(ctx context.Context) (id int64, ttl time.Duration, err error) {
	ctx, cancel := context.WithTimeout(stages.Own(ctx), callTimeout)
	defer cancel()
	req := &pb.LeaseGrantRequest{TTL: int64(r.o.TTL / time.Second)}
	if r.o.LeaseID != nil {
		req.ID = r.o.LeaseID()
	}
	resp, err := r.o.Lease.LeaseGrant(ctx, req)
	if err != nil {
		return 0, 0, err
	}
	return resp.ID, time.Duration(resp.TTL) * time.Second, nil
}

// renew renews the lease. A time of 0 or below says that it has ended.
func (r *Registry) renew(ctx context.Context, id int64) (left time.Duration, err error) {
	ctx, cancel := context.WithTimeout(stages.Own(ctx), callTimeout)
	defer cancel() // and with it the stream
	stream, err := r.o.Lease.LeaseKeepAlive(ctx)
	if err != nil {
		return 0, err
	}
	if err := stream.Send(&pb.LeaseKeepAliveRequest{ID: id}); err != nil {
		return 0, err
	}
	resp, err := stream.Recv()
	return time.Duration(resp.GetTTL()) * time.Second, err
}

// revoke ends the lease, and with it the records that are this sharder's: one that another
// sharder has written since, with the same address, has another lease, and stays.
func (r *Registry) revoke(ctx context.Context, id int64) {
	ctx, cancel := context.WithTimeout(stages.Own(ctx), LeaveTimeout)
	defer cancel()
	if _, err := r.o.Lease.LeaseRevoke(ctx, &pb.LeaseRevokeRequest{ID: id}); err != nil {
		r.o.Logger.Warn("this sharder could not take its registration back; it ends by itself", "prefix", r.shown(), "ttl", r.o.TTL, "error", err)
	}
}

// write writes the records; those that are missing only, or all. Several sharders with one
// address (behind a load balancer) share a record, and must not write it in turns.
func (r *Registry) write(ctx context.Context, lease int64, missing bool) error {
	ctx, cancel := context.WithTimeout(stages.Own(ctx), callTimeout)
	defer cancel()
	for address, value := range r.records {
		key := []byte(r.o.Prefix + "/" + address)
		txn := &pb.TxnRequest{Success: []*pb.RequestOp{{Request: &pb.RequestOp_RequestPut{
			RequestPut: &pb.PutRequest{Key: key, Value: value, Lease: lease},
		}}}}
		if missing {
			txn.Compare = []*pb.Compare{{
				Key: key, Target: pb.Compare_VERSION, Result: pb.Compare_EQUAL, TargetUnion: &pb.Compare_Version{Version: 0},
			}}
		}
		if _, err := r.o.KV.Txn(ctx, txn); err != nil {
			return err
		}
	}
	return nil
}

// listing is what is registered at one revision.
type listing struct {
	entries []entry
	header  *pb.ResponseHeader
}

// list reads the records of everybody. What is no record of an address is left out.
func (r *Registry) list(ctx context.Context, linearizable bool) (listing, error) {
	ctx, cancel := context.WithTimeout(stages.Own(ctx), callTimeout)
	defer cancel()
	from := []byte(r.o.Prefix + "/")
	end := []byte(r.o.Prefix + "0") // "0" is behind "/"
	resp, err := r.o.KV.Range(ctx, &pb.RangeRequest{Key: from, RangeEnd: end, Limit: most, Serializable: !linearizable})
	if err != nil {
		return listing{}, r.unreadable(err)
	}
	l := listing{header: resp.Header}
	for _, kv := range resp.Kvs {
		if e, ok := parse(kv.Value); ok {
			l.entries = append(l.entries, e)
		} else {
			r.o.Logger.Debug("a key among the registrations is none", "key", string(kv.Key))
		}
	}
	return l, nil
}

// unreadable is the error of a read: what etcd has against sharder is not to be taken for
// something it has against the client.
func (r *Registry) unreadable(err error) error {
	switch st := status.Convert(err); st.Code() {
	case codes.InvalidArgument, codes.PermissionDenied, codes.Unauthenticated:
		return status.Errorf(codes.FailedPrecondition, "sharder: it may not read who is registered under %q: %s", r.o.Prefix, st.Message())
	}
	return err
}
