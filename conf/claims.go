package conf

import (
	"fmt"
	"net"
	"strconv"
	"strings"
)

// own is what claims call the process that reads the file, ownMetrics its HTTP side.
const (
	own        = "sharder itself"
	ownMetrics = "sharder's metrics"
)

// claim is an address with what it was written for.
type claim struct {
	address
	node  *node
	owner string // own, ownMetrics, OrderName, `shard "a"` or `gateway "a"`
	local bool   // something of this process listens there
}

// same reports whether a and b must be one and the same place. Port 0 is never the
// same as anything.
func (a claim) same(b claim) bool {
	switch {
	case a.port == 0 || a.port != b.port:
		return false
	case a.host == b.host:
		return a.host != "" || a.local && b.local
	case a.host == "" && a.local:
		return b.local || b.loopback()
	case b.host == "" && b.local:
		return a.local || a.loopback()
	}
	return false
}

// claims are all the addresses of the file that are well-formed: those of sharder
// itself first, then those of the shards, in the order of the file, of [order] and of
// the gateways.
func (s *schema) claims(root *node) []claim {
	var all []claim
	listens := func(text string, n *node, owner string) {
		if a, what, _ := parseAddress(text, true); what == "" {
			all = append(all, claim{address: a, node: n, owner: owner, local: true})
		}
	}
	listen, owner := root.kid("listen"), own
	if listen == nil {
		listen, owner = root.missing("listen"), own+", by default,"
	}
	for _, text := range s.c.Listen {
		if l, what, _ := parseListener(text); what == "" && l.network == "tcp" {
			all = append(all, claim{address: l.address, node: listen, owner: owner, local: true})
		}
	}
	if l, _, _ := parseListener(s.c.Metrics); l.network == "tcp" && s.c.Metrics != "" {
		all = append(all, claim{address: l.address, node: root.kid("metrics"), owner: ownMetrics, local: true})
	}
	cluster := func(sh *Shard, n *node, owner string) {
		if sh.Listen != "" {
			listens(sh.Listen, n.kid("listen"), owner)
		}
		for _, text := range sh.Endpoints {
			if _, a, what, _ := parseEndpoint(text); what == "" {
				all = append(all, claim{address: a, node: n.kid("endpoints"), owner: owner})
			}
		}
	}
	for i := range s.c.Shards {
		cluster(&s.c.Shards[i], s.nodes[i], fmt.Sprintf("shard %q", s.c.Shards[i].Name))
	}
	if s.c.Order != nil {
		cluster(&s.c.Order.Shard, s.ordering, OrderName)
	}
	// Where a gateway leads may well be a shard, or sharder itself.
	for i, g := range s.c.Gateways {
		if g.Listen != "" {
			listens(g.Listen, s.gates[i].kid("listen"), fmt.Sprintf("gateway %q", g.Name))
		}
	}
	return all
}

// checkAddresses checks that no address is written for two things: one etcd can't
// be two shards, and sharder can't be a shard of its own.
func (s *schema) checkAddresses(root *node) {
	byPort := make(map[int][]claim)
	for _, c := range s.claims(root) {
		for _, other := range byPort[c.port] {
			if c.same(other) {
				s.clash(c, other)
				break
			}
		}
		byPort[c.port] = append(byPort[c.port], c)
	}
}

// clash notes that c is the same place as other, which was written first.
func (s *schema) clash(c, other claim) {
	host := c.host
	if host == "" {
		host = "*"
	}
	what := fmt.Sprintf("%s is an address of %s already", net.JoinHostPort(host, strconv.Itoa(c.port)), other.owner)
	remedy := "write each address once"
	switch {
	case c.owner != other.owner && c.local:
		remedy = "give each its own port"
	case c.owner != other.owner && strings.HasPrefix(other.owner, own):
		remedy = "sharder can't be a shard of itself; write where the etcd listens, or change listen"
	case c.owner != other.owner && other.owner == ownMetrics:
		remedy = "sharder can't be a shard of itself; write where the etcd listens, or change metrics"
	case c.owner == OrderName:
		remedy = "the order has an etcd cluster of its own; a shard can't be that"
	case c.owner != other.owner:
		remedy = "one etcd can't be two shards; name it once"
	}
	s.wrong(c.node, what, remedy)
}
