package gateway

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

// Discovery finds endpoints by DNS SRV records, those that etcd's own clients look for:
// _etcd-client-ssl._tcp.DOMAIN and _etcd-client._tcp.DOMAIN, with -NAME behind the service
// if there is a name.
type Discovery struct {
	Domain string
	Name   string // of the cluster; "" for none
	// TLS, if set, has only those endpoints count that are found as ssl and prove with
	// their certificate that they belong to the domain. nil lets all in.
	TLS      *tls.Config
	Resolver *net.Resolver // nil is the system's
	Timeout  time.Duration // of one TLS handshake; 5s
	Logger   *slog.Logger
}

// Endpoints looks the records up. It is an error if there are none.
func (d Discovery) Endpoints(ctx context.Context) ([]Endpoint, error) {
	services := []string{"etcd-client-ssl"}
	if d.TLS == nil {
		services = append(services, "etcd-client")
	}
	var found []Endpoint
	var failures []error
	for _, service := range services {
		if d.Name != "" {
			service += "-" + d.Name
		}
		_, records, err := d.resolver().LookupSRV(ctx, service, "tcp", d.Domain)
		if err != nil {
			failures = append(failures, err)
		}
		for _, r := range records {
			addr := net.JoinHostPort(strings.TrimSuffix(r.Target, "."), strconv.Itoa(int(r.Port)))
			found = append(found, Endpoint{Addr: addr, Priority: r.Priority, Weight: r.Weight})
		}
	}
	if len(found) == 0 {
		return nil, fmt.Errorf("no SRV record for %s in %s: %w", strings.Join(services, " or "), d.Domain, errors.Join(failures...))
	}
	if d.TLS != nil {
		if found = d.proven(ctx, found); len(found) == 0 {
			return nil, fmt.Errorf("no endpoint of %s has a certificate for it", d.Domain)
		}
	}
	slices.SortStableFunc(found, func(a, b Endpoint) int {
		return cmp.Or(cmp.Compare(a.Priority, b.Priority), cmp.Compare(a.Addr, b.Addr))
	})
	return found, nil
}

func (d Discovery) resolver() *net.Resolver {
	if d.Resolver != nil {
		return d.Resolver
	}
	return net.DefaultResolver
}

// proven are those of the endpoints whose certificate is for the domain. One that can't be
// reached proves nothing, and is looked at again with the next lookup.
func (d Discovery) proven(ctx context.Context, es []Endpoint) []Endpoint {
	ok := iter.Map(es, func(e *Endpoint) bool {
		err := d.prove(ctx, e.Addr)
		if err != nil && ctx.Err() == nil {
			d.Logger.Warn("gateway: a discovered endpoint is left out", "endpoint", e.Addr, "domain", d.Domain, "error", err)
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

func (d Discovery) prove(ctx context.Context, addr string) error {
	ctx, cancel := context.WithTimeout(ctx, cmp.Or(d.Timeout, 5*time.Second))
	defer cancel()
	config := d.TLS.Clone()
	config.ServerName = d.Domain
	dialer := tls.Dialer{Config: config}
	c, err := dialer.DialContext(ctx, "tcp", addr)
	if err != nil {
		return err
	}
	return c.Close()
}
