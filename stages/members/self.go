package members

import (
	"context"
	"net"
	"slices"
	"strings"

	"github.com/cespare/xxhash/v2"
	"google.golang.org/grpc/peer"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
)

// Self is this sharder as its clients reach it. It is a value that nobody changes.
type Self struct {
	// Name is what people know it by; never empty, since clients of etcd overlook members
	// without a name.
	Name string
	// Addresses are where clients everywhere reach it: host:port, perhaps with http:// or
	// https:// before it. Without any it is not registered, and each client is told the
	// address on which it has come.
	Addresses []string
	// Secure says that what has no scheme is reached over TLS.
	Secure bool
	// Scheme, if set, tells the scheme of a connection by its local address.
	Scheme func(local net.Addr) string
	// Fallback is told to clients that have come on no address of their own, over a pipe
	// within the process.
	Fallback string
}

// scheme is that of an address without one.
func (s Self) scheme() string {
	if s.Secure {
		return "https"
	}
	return "http"
}

// member is this sharder as the client of ctx is to see it.
func (s Self) member(ctx context.Context) *pb.Member {
	addresses := s.Addresses
	if len(addresses) == 0 {
		addresses = []string{s.reached(ctx)}
	}
	m := &pb.Member{ID: idOf(addresses...), Name: s.Name}
	for _, a := range addresses {
		m.ClientURLs = append(m.ClientURLs, withScheme(a, s.scheme()))
	}
	return m
}

// reached is the address on which the client of ctx has come.
func (s Self) reached(ctx context.Context) string {
	if p, ok := peer.FromContext(ctx); ok && p.LocalAddr != nil {
		scheme := s.scheme()
		if s.Scheme != nil {
			scheme = s.Scheme(p.LocalAddr)
		}
		switch p.LocalAddr.Network() {
		case "tcp":
			return scheme + "://" + p.LocalAddr.String()
		case "unix":
			return map[string]string{"http": "unix", "https": "unixs"}[scheme] + "://" + p.LocalAddr.String()
		}
	}
	return withScheme(s.Fallback, s.scheme())
}

// withScheme is an address with the scheme, unless it has one.
func withScheme(address, scheme string) string {
	if strings.Contains(address, "://") || scheme == "" {
		return address
	}
	return scheme + "://" + address
}

// withoutScheme is what is behind the scheme.
func withoutScheme(address string) string {
	if _, rest, ok := strings.Cut(address, "://"); ok {
		return rest
	}
	return address
}

// idOf is the id of the member that has these addresses: the same on every sharder and
// after every restart, and never 0, which is nobody's.
func idOf(addresses ...string) uint64 {
	bare := make([]string, len(addresses))
	for i, a := range addresses {
		bare[i] = strings.ToLower(withoutScheme(a))
	}
	slices.Sort(bare)
	return max(1, xxhash.Sum64String(strings.Join(bare, "\n")))
}
