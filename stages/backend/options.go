package backend

import (
	"cmp"
	"crypto/tls"
	"log/slog"
	"math"
	"net"
	"time"
)

const (
	defaultHealthInterval    = time.Second
	defaultTimeout           = 30 * time.Second
	defaultKeepaliveTime     = 10 * time.Second
	defaultKeepaliveTimeout  = 3 * time.Second
	defaultDiscoveryInterval = 30 * time.Second

	// maxEndpoints bounds a cluster's members. etcd itself advises at most seven that vote.
	maxEndpoints = 64
)

// Options says how to reach one etcd cluster. The zero value of a field is its
// default; Name has none, and neither have Endpoints and DiscoverySRV, of which there is
// one.
type Options struct {
	// Name is the shard's name, used in errors and log lines.
	Name string
	// Endpoints are the members, "host:port", "http://host:port", "https://host:port",
	// "unix://path" or "unixs://path", at most 64, each of them once.
	Endpoints []string
	// DiscoverySRV is the domain whose SRV records name the members (package discovery), and
	// DiscoveryName the cluster among those of the domain. Unless InsecureDiscovery is set,
	// members speak TLS, and prove at every connection that they belong to the domain.
	DiscoverySRV, DiscoveryName string
	InsecureDiscovery           bool
	// DiscoveryInterval is the time between two lookups. Default 30s.
	DiscoveryInterval time.Duration
	// Resolver looks records up. Default: the system's.
	Resolver *net.Resolver
	// AutoSyncInterval is how often the cluster is asked who its members are, who then are
	// the endpoints instead of those that were written or discovered. Default: never.
	AutoSyncInterval time.Duration
	// TLS is used for every endpoint if set. Without it an endpoint is spoken to
	// in plain text, unless it says https: then the system's roots verify it.
	TLS *tls.Config
	// Username and Password authenticate sharder itself, for calls that do not
	// carry a token of their own. An empty Username means no authentication.
	Username, Password string
	// OwnCallsOnly keeps sharder's identity, which is the user above or else the name in
	// TLS's client certificate, to calls that are its own ([stages.Own]). All others are made
	// for clients, who answer for themselves: with their own token, or as nobody.
	OwnCallsOnly bool
	// HealthInterval is how often each member is probed. Default 1s.
	HealthInterval time.Duration
	// KeepaliveTime is how long a connection is silent before it is pinged, at least gRPC's
	// 10s, which is the default; negative for never. KeepaliveTimeout is how long the answer
	// may take, by default 3s. KeepaliveWithoutCalls pings with nothing under way, too, which
	// etcd's servers forbid unless they are told otherwise.
	KeepaliveTime, KeepaliveTimeout time.Duration
	KeepaliveWithoutCalls           bool
	// MaxSendBytes and MaxRecvBytes bound one message to and from a member. By default
	// nothing does, and etcd itself says what is too large for it.
	MaxSendBytes, MaxRecvBytes int
	// Timeout bounds a unary call whose context has no deadline, to 1/32 of it. Default 30s;
	// negative for no bound. Calls that wait by design (a lock, a campaign, a
	// defragmentation, a compaction) are never bounded.
	Timeout time.Duration
	// Meter makes a meter for each endpoint as it comes. Default: nothing is counted.
	Meter func(endpoint string) Meter
	// Logger receives changes of the members' health. Default: none.
	Logger *slog.Logger
}

// Meter hears of the calls to one endpoint. Its methods may be called from any goroutine.
type Meter interface {
	// Called is told of a unary call that was sent there, or should have been, and how it
	// ended.
	Called(took time.Duration, err error)
	// Opened is told of a stream.
	Opened()
	// Gone is told, last, that it is no endpoint any more.
	Gone()
}

// unmetered is the meter of those who count nothing.
type unmetered struct{}

func (unmetered) Called(time.Duration, error) {}
func (unmetered) Opened()                     {}
func (unmetered) Gone()                       {}

// withDefaults fills in what was left out.
func (o Options) withDefaults() Options {
	if o.HealthInterval <= 0 {
		o.HealthInterval = defaultHealthInterval
	}
	if o.Timeout == 0 {
		o.Timeout = defaultTimeout
	}
	o.KeepaliveTime = cmp.Or(o.KeepaliveTime, defaultKeepaliveTime)
	o.KeepaliveTimeout = cmp.Or(o.KeepaliveTimeout, defaultKeepaliveTimeout)
	o.DiscoveryInterval = cmp.Or(o.DiscoveryInterval, defaultDiscoveryInterval)
	o.MaxSendBytes = cmp.Or(o.MaxSendBytes, math.MaxInt32)
	o.MaxRecvBytes = cmp.Or(o.MaxRecvBytes, math.MaxInt32)
	if o.Meter == nil {
		o.Meter = func(string) Meter { return unmetered{} }
	}
	if o.Logger == nil {
		o.Logger = slog.New(slog.DiscardHandler)
	}
	return o
}
