package conf

import (
	"maps"
	"time"
)

// Upstream is how the members of a shard are found and spoken to.
type Upstream struct {
	// DiscoverySRV (discovery_srv) is the domain whose SRV records name the members, instead of
	// Endpoints, and DiscoveryName (discovery_srv_name) the cluster among those of the domain.
	DiscoverySRV, DiscoveryName string
	// InsecureDiscovery (insecure_discovery) lets members in that don't prove by a
	// certificate that they belong to the domain.
	InsecureDiscovery bool
	// DiscoveryInterval (discovery_interval) is the time between two lookups.
	DiscoveryInterval time.Duration
	// AutoSyncInterval (auto_sync_interval) is how often the cluster is asked who its
	// members are, which then are the endpoints; 0 is never.
	AutoSyncInterval time.Duration
	// KeepAliveTime (keepalive_time) is how long a connection is silent before it is pinged,
	// 0 is never; KeepAliveTimeout (keepalive_timeout) is how long the answer may take.
	// KeepAliveWithoutCalls (keepalive_without_calls) pings with nothing under way, too.
	KeepAliveTime, KeepAliveTimeout time.Duration
	KeepAliveWithoutCalls           bool
	// MaxSendBytes (max_send_bytes) and MaxRecvBytes (max_recv_bytes) bound one message to
	// and from a member.
	MaxSendBytes, MaxRecvBytes Size
}

// MaxMessage is the bound of gRPC itself on a message.
const MaxMessage = 2 * GiB

// leastPing is the smallest pause between pings that gRPC's clients keep.
const leastPing = 10 * time.Second

// defaultUpstream is what holds where the file says nothing.
func defaultUpstream() Upstream {
	return Upstream{
		DiscoveryInterval: 30 * time.Second, KeepAliveTime: leastPing, KeepAliveTimeout: 3 * time.Second,
		MaxSendBytes: MaxMessage, MaxRecvBytes: MaxMessage,
	}
}

// upstream adds its keys to those of a shard.
func (s *schema) upstream(u *Upstream, f fields) fields {
	maps.Copy(f, fields{
		"discovery_srv":           {read: s.text(&u.DiscoverySRV, `a domain, such as "example.com"`)},
		"discovery_srv_name":      {read: s.text(&u.DiscoveryName, `the name of a cluster`)},
		"insecure_discovery":      {read: s.flag(&u.InsecureDiscovery)},
		"discovery_interval":      {read: s.duration(&u.DiscoveryInterval, probes, day)},
		"auto_sync_interval":      {read: s.pause(&u.AutoSyncInterval, probes, day)},
		"keepalive_time":          {read: s.pause(&u.KeepAliveTime, leastPing, day)},
		"keepalive_timeout":       {read: s.duration(&u.KeepAliveTimeout, moment, day)},
		"keepalive_without_calls": {read: s.flag(&u.KeepAliveWithoutCalls)},
		"max_send_bytes":          {read: s.size(&u.MaxSendBytes, KiB, MaxMessage)},
		"max_recv_bytes":          {read: s.size(&u.MaxRecvBytes, KiB, MaxMessage)},
	})
	return f
}

// checkDiscovery checks where the members of a cluster, called what, come from.
func (s *schema) checkDiscovery(sh *Shard, n *node, what string) {
	srv, endpoints := n.kid("discovery_srv"), n.kid("endpoints")
	switch {
	case srv == nil && endpoints == nil:
		s.wrong(n, what+" has neither endpoints nor discovery_srv nor embedded = true",
			`write endpoints = ["10.0.0.1:2379"] with the addresses of its members, discovery_srv = "example.com", or embedded = true`)
	case srv != nil && endpoints != nil:
		s.wrong(srv, "the endpoints are written already", "take one of the two out")
	}
	for _, name := range []string{"discovery_srv_name", "insecure_discovery", "discovery_interval"} {
		if kid := n.kid(name); kid != nil && srv == nil {
			s.wrong(kid, "nothing is discovered, so this has no meaning", `write discovery_srv = "example.com", or take it out`)
		}
	}
	if srv != nil && !sh.InsecureDiscovery && sh.TLS.InsecureSkipVerify {
		s.wrong(n.kid("tls").kid("insecure_skip_verify"), "members that are discovered have to prove by a certificate that they belong to the domain, and this looks at none",
			"take it out, or write insecure_discovery = true")
	}
}
