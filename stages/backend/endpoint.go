package backend

import (
	"context"
	"crypto/tls"
	"fmt"
	"net"
	"net/url"
	"path/filepath"
	"strconv"
	"strings"

	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/credentials/insecure"

	"github.com/sharder/sharder/stages/socket"
)

// endpoint is one member's address and how it is spoken to.
type endpoint struct {
	addr             string      // host:port, or unix:// and the path of a socket
	socket           string      // that path; empty for host:port
	secure           bool        // over TLS
	tls              *tls.Config // how, if secure
	creds            credentials.TransportCredentials
	priority, weight uint16 // of RFC 2782
	// cluster is the id of the only cluster that its member may be of; 0 for any. It is set
	// for addresses that nobody wrote, but a cluster told.
	cluster uint64
}

// endpointKey is what makes two endpoints the same.
type endpointKey struct {
	addr   string
	secure bool
}

func (e endpoint) key() endpointKey { return endpointKey{e.addr, e.secure} }

// endpoints parses all of them and reports the first that makes no sense. With discovery
// there are none.
func (o Options) endpoints() ([]endpoint, error) {
	switch {
	case o.DiscoverySRV != "" && len(o.Endpoints) > 0:
		return nil, fmt.Errorf("sharder: %s: endpoints, and a domain to find them in", calling(o.Name))
	case o.DiscoverySRV != "":
		return nil, nil
	case len(o.Endpoints) == 0:
		return nil, fmt.Errorf("sharder: %s: no endpoints", calling(o.Name))
	case len(o.Endpoints) > maxEndpoints:
		return nil, fmt.Errorf("sharder: %s: %d endpoints, at most %d are possible", calling(o.Name), len(o.Endpoints), maxEndpoints)
	}
	out := make([]endpoint, 0, len(o.Endpoints))
	seen := make(map[string]bool)
	for _, text := range o.Endpoints {
		e, err := parseEndpoint(text, o.TLS)
		if err != nil {
			return nil, fmt.Errorf("sharder: %s: endpoint %q: %w", calling(o.Name), text, err)
		}
		if seen[e.addr] {
			return nil, fmt.Errorf("sharder: %s: endpoint %q is listed twice", calling(o.Name), text)
		}
		seen[e.addr] = true
		out = append(out, e)
	}
	return out, nil
}

// parseEndpoint turns one endpoint into an address and the way to secure it.
func parseEndpoint(text string, conf *tls.Config) (endpoint, error) {
	addr, secure := text, conf != nil
	if strings.Contains(text, "://") {
		u, err := url.Parse(text)
		if err != nil {
			return endpoint{}, err
		}
		plain := u.Scheme == "http" || u.Scheme == "unix"
		switch {
		case !plain && u.Scheme != "https" && u.Scheme != "unixs":
			return endpoint{}, fmt.Errorf("scheme %q is unknown; write host:port, http://host:port, https://host:port or unix:///path", u.Scheme)
		case plain && conf != nil:
			return endpoint{}, fmt.Errorf("it says plain text, but TLS is configured; write %ss://%s, or leave the TLS settings out", u.Scheme, u.Host+u.Path)
		case u.RawQuery != "" || u.Fragment != "" || u.User != nil:
			return endpoint{}, fmt.Errorf("only a scheme, a host and a port belong here")
		}
		if secure = !plain; strings.HasPrefix(u.Scheme, "unix") {
			return socketEndpoint(u.Host+u.Path, conf, secure)
		}
		if strings.Trim(u.Path, "/") != "" {
			return endpoint{}, fmt.Errorf("only a scheme, a host and a port belong here")
		}
		addr = u.Host
	}
	host, port, err := net.SplitHostPort(addr)
	if err != nil {
		return endpoint{}, fmt.Errorf("not host:port (etcd's usual client port is 2379): %w", err)
	}
	if n, err := strconv.Atoi(port); err != nil || n < 1 || n > 65535 || host == "" {
		return endpoint{}, fmt.Errorf("not host:port with a port from 1 to 65535")
	}
	return endpoint{addr: addr}.spoken(conf, secure), nil
}

// socketEndpoint is an etcd of this machine that listens on a socket; a path that does not begin
// with a slash begins in the working directory, as with etcd's clients.
func socketEndpoint(path string, conf *tls.Config, secure bool) (endpoint, error) {
	if path == "" {
		return endpoint{}, fmt.Errorf("there is no path of a socket")
	}
	return endpoint{addr: "unix://" + path, socket: path}.spoken(conf, secure), nil
}

// dial connects to the endpoint; the address is what the caller takes it for.
func (e endpoint) dial(ctx context.Context, _, _ string) (net.Conn, error) {
	var d net.Dialer
	if e.socket != "" {
		return d.DialContext(ctx, "unix", e.socket)
	}
	return d.DialContext(ctx, "tcp", e.addr)
}

// connect is dial for gRPC, which says how long it waits for an answer to a ping only to connections
// that it knows.
func (e endpoint) connect(ctx context.Context, o Options) (net.Conn, error) {
	c, err := e.dial(ctx, "", "")
	if err != nil {
		return nil, err
	}
	if o.KeepaliveTime > 0 {
		if err := socket.GiveUpAfter(c, o.KeepaliveTimeout); err != nil {
			o.Logger.Debug("a connection is left to the system's patience", "shard", o.Name, "member", e.addr, "error", err)
		}
	}
	return socket.Wrap(c), nil
}

// authority is whom requests are for: of a socket the last part of its path, as etcd's clients
// have it, which a certificate has to name.
func (e endpoint) authority() string {
	if e.socket != "" {
		return filepath.Base(e.socket)
	}
	return e.addr
}

// spoken is the endpoint with the way to speak to it. A configuration is cloned: gRPC sets
// the server name per connection.
func (e endpoint) spoken(conf *tls.Config, secure bool) endpoint {
	e.secure, e.creds = secure, insecure.NewCredentials()
	if secure {
		if conf == nil {
			conf = &tls.Config{MinVersion: tls.VersionTLS12}
		}
		e.tls, e.creds = conf, credentials.NewTLS(conf.Clone())
	}
	return e
}
