package backend

import (
	"crypto/tls"
	"fmt"
	"log/slog"
	"net"
	"net/url"
	"strconv"
	"strings"
	"time"

	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/credentials/insecure"
)

const (
	defaultHealthInterval = time.Second
	defaultTimeout        = 30 * time.Second

	// maxEndpoints is what the set of members tried by one call can hold. etcd
	// itself advises at most seven voting members.
	maxEndpoints = 64
)

// Options says how to reach one etcd cluster. The zero value of a field is its
// default; Name and Endpoints have none.
type Options struct {
	// Name is the shard's name, used in errors and log lines.
	Name string
	// Endpoints are the members, "host:port", "http://host:port" or
	// "https://host:port", at most 64, each of them once.
	Endpoints []string
	// TLS is used for every endpoint if set. Without it an endpoint is spoken to
	// in plain text, unless it says https: then the system's roots verify it.
	TLS *tls.Config
	// Username and Password authenticate sharder itself, for calls that do not
	// carry a token of their own. An empty Username means no authentication.
	Username, Password string
	// HealthInterval is how often each member is probed. Default 1s.
	HealthInterval time.Duration
	// Timeout bounds a unary call whose context has no deadline. Default 30s;
	// negative for no bound. Calls that wait by design (a lock, a campaign, a
	// defragmentation, a compaction) are never bounded.
	Timeout time.Duration
	// Logger receives changes of the members' health. Default: none.
	Logger *slog.Logger
}

// withDefaults fills in what was left out.
func (o Options) withDefaults() Options {
	if o.HealthInterval <= 0 {
		o.HealthInterval = defaultHealthInterval
	}
	if o.Timeout == 0 {
		o.Timeout = defaultTimeout
	}
	if o.Logger == nil {
		o.Logger = slog.New(slog.DiscardHandler)
	}
	return o
}

// endpoint is a parsed entry of Options.Endpoints.
type endpoint struct {
	addr  string // host:port
	creds credentials.TransportCredentials
}

// endpoints parses all of them and reports the first that makes no sense.
func (o Options) endpoints() ([]endpoint, error) {
	if len(o.Endpoints) == 0 {
		return nil, fmt.Errorf("sharder: %s: no endpoints", calling(o.Name))
	}
	if len(o.Endpoints) > maxEndpoints {
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
		switch {
		case u.Scheme != "http" && u.Scheme != "https":
			return endpoint{}, fmt.Errorf("scheme %q is unknown; write host:port, http://host:port or https://host:port", u.Scheme)
		case u.Scheme == "http" && conf != nil:
			return endpoint{}, fmt.Errorf("it says plain text, but TLS is configured; write https://%s, or leave the TLS settings out", u.Host)
		case strings.Trim(u.Path, "/") != "" || u.RawQuery != "" || u.Fragment != "" || u.User != nil:
			return endpoint{}, fmt.Errorf("only a scheme, a host and a port belong here")
		}
		addr, secure = u.Host, u.Scheme == "https"
	}
	host, port, err := net.SplitHostPort(addr)
	if err != nil {
		return endpoint{}, fmt.Errorf("not host:port (etcd's usual client port is 2379): %w", err)
	}
	if n, err := strconv.Atoi(port); err != nil || n < 1 || n > 65535 || host == "" {
		return endpoint{}, fmt.Errorf("not host:port with a port from 1 to 65535")
	}
	return endpoint{addr: addr, creds: transportCreds(conf, secure)}, nil
}

// transportCreds makes gRPC's credentials. A configuration is cloned: gRPC sets
// the server name per connection.
func transportCreds(conf *tls.Config, secure bool) credentials.TransportCredentials {
	switch {
	case !secure:
		return insecure.NewCredentials()
	case conf == nil:
		return credentials.NewTLS(&tls.Config{MinVersion: tls.VersionTLS12})
	default:
		return credentials.NewTLS(conf.Clone())
	}
}
