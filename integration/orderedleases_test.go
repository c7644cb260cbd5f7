package integration

import (
	"slices"

	"google.golang.org/protobuf/proto"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
)

// leaseRequest makes one request about a lease, whose keys may be on all shards, to both.
func (d *duel) leaseRequest(name string) {
	d.t.Helper()
	id, kind := d.gen.lease(), d.gen.rand.IntN(8)
	var replies [2]proto.Message
	var errs [2]error
	for i, conn := range d.conns() {
		c, ctx := pb.NewLeaseClient(conn), bounded(d.t)
		switch {
		case kind < 4:
			replies[i], errs[i] = c.LeaseGrant(ctx, &pb.LeaseGrantRequest{ID: id, TTL: 3600})
		case kind < 6:
			replies[i], errs[i] = c.LeaseRevoke(ctx, &pb.LeaseRevokeRequest{ID: id})
		case kind < 7:
			replies[i], errs[i] = c.LeaseTimeToLive(ctx, &pb.LeaseTimeToLiveRequest{ID: id, Keys: true})
		default:
			replies[i], errs[i] = c.LeaseLeases(ctx, &pb.LeaseLeasesRequest{})
		}
	}
	if !d.sameError(name, "lease", errs) || errs[0] != nil {
		return
	}
	for i := range replies {
		replies[i] = bareLease(replies[i])
	}
	if !proto.Equal(replies[0], replies[1]) {
		d.t.Errorf("%s: %T of lease %d\netcd: %s\nsharder: %s", name, replies[0], id, short(replies[0]), short(replies[1]))
	}
	if r, ok := replies[0].(*pb.LeaseRevokeResponse); ok {
		d.gen.head = max(d.gen.head, r.Header.Revision)
	}
}

// bareLease is a reply without who answered, the clock, and the order of keys and leases,
// which etcd leaves to chance.
func bareLease(reply proto.Message) proto.Message {
	n := normalizer{revisions: true}
	switch r := reply.(type) {
	case *pb.LeaseGrantResponse:
		n.header(r.Header)
	case *pb.LeaseRevokeResponse:
		n.header(r.Header)
	case *pb.LeaseTimeToLiveResponse:
		n.header(r.Header)
		if r.TTL > 0 {
			r.TTL = r.GrantedTTL
		}
		slices.SortFunc(r.Keys, slices.Compare)
	case *pb.LeaseLeasesResponse:
		n.header(r.Header)
		slices.SortFunc(r.Leases, func(a, b *pb.LeaseStatus) int { return int(a.ID - b.ID) })
	}
	return reply
}
