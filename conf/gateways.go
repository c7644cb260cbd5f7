package conf

import (
	"fmt"
	"strings"
	"time"
)

// Gateway is a table [gateways.NAME]: connections to its address are passed on to the
// members of one etcd cluster byte by byte, whatever they carry.
type Gateway struct {
	Name string // the NAME of [gateways.NAME]: letters, digits, "_" and "-"
	// Listen (listen) is where clients connect, host:port.
	Listen string
	// Endpoints (endpoints) are the members, host:port. Either these or DiscoverySRV.
	Endpoints []string
	// DiscoverySRV (discovery_srv) is the domain whose SRV records name the members, and
	// DiscoveryName (discovery_srv_name) the cluster among those of the domain.
	DiscoverySRV, DiscoveryName string
	// InsecureDiscovery (insecure_discovery) lets members in that don't prove by a
	// certificate that they belong to the domain. TrustedCA (trusted_ca_file) says which
	// certificates are believed; the system's by default.
	InsecureDiscovery bool
	TrustedCA         string
	// DiscoveryInterval (discovery_interval) is the time between two lookups.
	DiscoveryInterval time.Duration
	// Strategy (strategy) is how an endpoint is picked: one of Strategies.
	Strategy string
	// Connections (connections) is how many may be open at once; others wait.
	Connections int
	// DialTimeout (dial_timeout) bounds an attempt to reach an endpoint, ProbeInterval
	// (probe_interval) is the time between two probes of each.
	DialTimeout, ProbeInterval time.Duration
}

// Strategies are the words for Gateway.Strategy, the default first.
var Strategies = []string{"round-robin", "random", "least-connections"}

// DefaultGateway is a gateway whose table is empty.
func DefaultGateway(name string) Gateway {
	return Gateway{
		Name: name, DiscoveryInterval: 30 * time.Second, Strategy: Strategies[0],
		Connections: 10_000, DialTimeout: 3 * time.Second, ProbeInterval: time.Second,
	}
}

func (s *schema) gateway(g *Gateway) fields {
	const file = `the path of a file`
	return fields{
		"listen":             {read: s.address(&g.Listen, "127.0.0.1:23790")},
		"endpoints":          {read: s.endpoints(&g.Endpoints, false)},
		"discovery_srv":      {read: s.text(&g.DiscoverySRV, `a domain, such as "example.com"`)},
		"discovery_srv_name": {read: s.text(&g.DiscoveryName, `the name of a cluster`)},
		"insecure_discovery": {read: s.flag(&g.InsecureDiscovery)},
		"trusted_ca_file":    {read: s.text(&g.TrustedCA, file)},
		"discovery_interval": {read: s.duration(&g.DiscoveryInterval, probes, day)},
		"strategy":           {read: s.oneOf(&g.Strategy, Strategies)},
		"connections":        {read: s.count(&g.Connections, 1, many)},
		"dial_timeout":       {read: s.duration(&g.DialTimeout, moment, day)},
		"probe_interval":     {read: s.duration(&g.ProbeInterval, probes, day)},
	}
}

// gateways reads [gateways.NAME], in the order of the file.
func (s *schema) gateways(n *node) {
	for _, kid := range n.kids {
		if !kid.table {
			s.wrong(kid, "want a table, have "+describe(kid.value), fmt.Sprintf("write it as [%s] with lines below", kid.key))
			continue
		}
		s.name(kid, "a gateway")
		g := DefaultGateway(kid.name())
		s.walk(kid, s.gateway(&g))
		s.checkGateway(kid, &g)
		s.c.Gateways = append(s.c.Gateways, g)
		s.gates = append(s.gates, kid)
	}
}

// name checks the name of a table for what it names.
func (s *schema) name(n *node, what string) {
	if name := n.name(); name == "" || strings.Trim(name, letters) != "" || len(name) > maxName {
		s.wrong(n, fmt.Sprintf("%q is not a name for %s", name, what),
			fmt.Sprintf(`use 1 to %d letters, digits, "_" and "-"`, maxName))
	}
}

// checkGateway checks what no single value shows.
func (s *schema) checkGateway(n *node, g *Gateway) {
	if n.kid("listen") == nil {
		s.wrong(n, "the gateway has no address", `write listen = "127.0.0.1:23790"`)
	}
	srv, endpoints := n.kid("discovery_srv"), n.kid("endpoints")
	switch {
	case srv == nil && endpoints == nil:
		s.wrong(n, "the gateway has neither endpoints nor discovery_srv",
			`write endpoints = ["10.0.0.1:2379"] with the addresses of the members, or discovery_srv = "example.com"`)
	case srv != nil && endpoints != nil:
		s.wrong(srv, "the endpoints are written already", "take one of the two out")
	}
	s.checkLoop(endpoints, g)
	for _, name := range []string{"discovery_srv_name", "insecure_discovery", "trusted_ca_file", "discovery_interval"} {
		if kid := n.kid(name); kid != nil && srv == nil {
			s.wrong(kid, "nothing is discovered, so this has no meaning", `write discovery_srv = "example.com", or take it out`)
		}
	}
	if ca := n.kid("trusted_ca_file"); ca != nil && g.InsecureDiscovery {
		s.wrong(ca, "with insecure_discovery no certificate is looked at", "take one of the two out")
	}
}

// checkLoop refuses a gateway that passes connections on to itself.
func (s *schema) checkLoop(endpoints *node, g *Gateway) {
	own, what, _ := parseAddress(g.Listen, true)
	if what != "" {
		return
	}
	for _, text := range g.Endpoints {
		_, a, what, _ := parseEndpoint(text)
		if what == "" && (claim{address: own, local: true}).same(claim{address: a}) {
			s.wrong(endpoints, fmt.Sprintf("%q is the gateway itself", text), "write where the etcd listens, or change listen")
		}
	}
}
