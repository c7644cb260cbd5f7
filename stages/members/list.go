package members

import (
	"cmp"
	"context"
	"slices"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
)

// List answers MemberList with the sharders. Its Answer is a pipeline.Stage, and may be
// called from any goroutine.
type List struct {
	Self Self
	// Registry is where sharders are registered; nil if they aren't.
	Registry *Registry
	// Header gives the header of the answer, or says why the client may have none. Without
	// it the header is that of the read of the registry, which then must be there.
	Header func(ctx context.Context, r *pb.MemberListRequest) (*pb.ResponseHeader, error)
}

// Answer answers one request. The sharder that is asked is in the answer unless it is about
// to leave its clients to others.
func (l *List) Answer(ctx context.Context, r *pb.MemberListRequest) (*pb.MemberListResponse, error) {
	out := &pb.MemberListResponse{}
	var err error
	if l.Header != nil {
		if out.Header, err = l.Header(ctx, r); err != nil {
			return nil, err
		}
	}
	if l.Registry != nil {
		found, err := l.Registry.list(ctx, r.Linearizable)
		if err != nil {
			return nil, err
		}
		out.Members = gathered(found.entries)
		if out.Header == nil {
			out.Header = found.header
		}
		if out.Header.Revision == 0 {
			out.Header.Revision = found.header.GetRevision() // etcd itself doesn't tell with its members
		}
	}
	self := l.Self.member(ctx)
	here := slices.ContainsFunc(out.Members, func(m *pb.Member) bool { return m.ID == self.ID })
	if !here && (len(out.Members) == 0 || !l.Registry.left.Load()) {
		out.Members = append(out.Members, self)
	}
	slices.SortFunc(out.Members, func(a, b *pb.Member) int { return cmp.Compare(a.ClientURLs[0], b.ClientURLs[0]) })
	return out, nil
}

// gathered makes a member of the addresses that have the same id.
func gathered(entries []entry) (all []*pb.Member) {
	byID := make(map[uint64]*pb.Member)
	for _, e := range entries {
		m := byID[e.id]
		if m == nil {
			m = &pb.Member{ID: e.id, Name: e.name}
			byID[e.id] = m
			all = append(all, m)
		}
		m.ClientURLs = append(m.ClientURLs, e.url)
	}
	return all
}
