package discovery

import (
	"cmp"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/sourcegraph/conc/iter"
)

// Endpoint is the client address of one member.
type Endpoint struct {
	Addr string // host:port; a host is looked up at every dial
	// Secure says that the member speaks TLS, as far as it was found so.
	Secure bool
	// Priority and Weight are those of RFC 2782: only the endpoints with the lowest
	// priority that answer are used, each in proportion to its weight. 0 for all is equal.
	Priority, Weight uint16
}

// Lookup says what to look for: _etcd-client-ssl._tcp.DOMAIN, whose members speak TLS, and
// _etcd-client._tcp.DOMAIN, whose members don't, with -NAME behind the service if there is
// a name. It may be used from any goroutine.
type Lookup struct {
	Domain string
	Name   string // of the cluster; "" for none
	// SecureOnly leaves out what is found as speaking no TLS.
	SecureOnly bool
	// TLS, if set, has only those endpoints count that are found as secure and prove with
	// their certificate, at this moment, that they belong to the domain. It is for those who
	// don't look at certificates when they connect.
	TLS      *tls.Config
	Resolver *net.Resolver // nil is the system's
	Timeout  time.Duration // of one TLS handshake; 5s
	Logger   *slog.Logger
}

// Endpoints looks the records up, both kinds together, each address once, the best
// priority first. It is an error if there are none. An error next to endpoints says that
// some could not be asked for: they are better than nothing, and no reason to leave those
// that are known.
func (l Lookup) Endpoints(ctx context.Context) ([]Endpoint, error) {
	found, incomplete := l.records(ctx)
	if len(found) == 0 {
		return nil, incomplete
	}
	if l.TLS != nil {
		if found = l.proven(ctx, found); len(found) == 0 {
			return nil, fmt.Errorf("no endpoint of %s has a certificate for it", l.Domain)
		}
	}
	slices.SortStableFunc(found, func(a, b Endpoint) int {
		return cmp.Or(cmp.Compare(a.Priority, b.Priority), cmp.Compare(a.Addr, b.Addr))
	})
	return found, incomplete
}

// records asks for both services, or for the secure one alone. The error says what could
// not be asked, or that there is nothing.
func (l Lookup) records(ctx context.Context) (found []Endpoint, err error) {
	services := []string{"etcd-client-ssl"}
	if l.TLS == nil && !l.SecureOnly {
		services = append(services, "etcd-client")
	}
	var failures, temporary []error
	for i, service := range services {
		if l.Name != "" {
			service += "-" + l.Name
			services[i] = service
		}
		_, records, err := l.resolver().LookupSRV(ctx, service, "tcp", l.Domain)
		if err != nil {
			failures = append(failures, err)
		}
		if no := (*net.DNSError)(nil); err != nil && !(errors.As(err, &no) && no.IsNotFound) {
			temporary = append(temporary, err)
		}
		for _, r := range records {
			addr := net.JoinHostPort(strings.TrimSuffix(r.Target, "."), strconv.Itoa(int(r.Port)))
			if slices.ContainsFunc(found, func(e Endpoint) bool { return e.Addr == addr }) {
				continue // one that is found as secure is not spoken to in the clear
			}
			found = append(found, Endpoint{Addr: addr, Secure: i == 0, Priority: r.Priority, Weight: r.Weight})
		}
	}
	if len(found) == 0 {
		return nil, fmt.Errorf("no SRV record for %s in %s: %w", strings.Join(services, " or "), l.Domain, errors.Join(failures...))
	}
	return found, errors.Join(temporary...)
}

func (l Lookup) resolver() *net.Resolver {
	if l.Resolver != nil {
		return l.Resolver
	}
	return net.DefaultResolver
}

// proven are those of the endpoints whose certificate is for the domain. One that can't be
// reached proves nothing, and is looked at again with the next lookup.
func (l Lookup) proven(ctx context.Context, es []Endpoint) []Endpoint {
	ok := iter.Map(es, func(e *Endpoint) bool {
		err := l.prove(ctx, e.Addr)
		if err != nil && ctx.Err() == nil {
			l.Logger.Warn("a discovered endpoint is left out", "endpoint", e.Addr, "domain", l.Domain, "error", err)
		}
		return err == nil
	})
	var out []Endpoint
	for i, e := range es {
		if ok[i] {
			out = append(out, e)
		}
	}
	return out
}

func (l Lookup) prove(ctx context.Context, addr string) error {
	ctx, cancel := context.WithTimeout(ctx, cmp.Or(l.Timeout, 5*time.Second))
	defer cancel()
	config := l.TLS.Clone()
	config.ServerName = l.Domain
	dialer := tls.Dialer{Config: config}
	c, err := dialer.DialContext(ctx, "tcp", addr)
	if err != nil {
		return err
	}
	return c.Close()
}
