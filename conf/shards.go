package conf

import (
	"fmt"
)

// letters are what a shard's name may be made of. It names a directory, too.
const letters = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_-"

// maxName bounds a shard's name, so that it fits into file names and metrics.
const maxName = 63

// shards reads [shards.NAME], in the order of the file.
func (s *schema) shards(n *node) {
	for _, kid := range n.kids {
		if !kid.table {
			s.misplaced(kid)
			continue
		}
		s.name(kid, "a shard")
		shard := DefaultShard(kid.name())
		s.walk(kid, s.shard(&shard))
		s.c.Shards = append(s.c.Shards, shard)
		s.nodes = append(s.nodes, kid)
	}
}

// misplaced reports a value where a shard's table should be.
func (s *schema) misplaced(n *node) {
	name := n.name()
	if _, ok := s.shard(new(Shard))[name]; ok {
		s.wrong(n, fmt.Sprintf("%q is a key of one shard, not of all", name), "write it below a [shards.NAME]")
		return
	}
	s.wrong(n, "want a table, have "+describe(n.value), fmt.Sprintf("write it as [%s] with lines below", n.key))
}

// validate checks what no single value shows. A rule whose values have been found
// wrong before is skipped: one slip should be one error.
func (s *schema) validate(root *node) {
	if len(s.c.Shards) == 0 {
		if s.onlyGateways(root) {
			s.checkListeners(root)
			s.checkAddresses(root)
			return
		}
		if shards := root.kid("shards"); shards == nil || len(shards.kids) == 0 {
			s.wrong(root.missing("shards"), "there is no shard",
				"add a table such as [shards.a] with endpoints = [\"10.0.0.1:2379\"] or embedded = true")
		}
		return
	}
	homeless := root.kid("data_dir") == nil
	for i, n := range s.nodes {
		if s.c.Shards[i].Embedded {
			s.checkEmbedded(n, homeless, "the shard")
			homeless = false // saying it once will do
		} else {
			s.checkExternal(&s.c.Shards[i], n, "the shard")
		}
	}
	if s.c.Order != nil {
		s.checkOrder(homeless)
		if o := root.kid("serializable_ordering"); o != nil {
			s.wrong(o, "with [order] serializable reads never go back", "take it out")
		}
	}
	s.checkListeners(root)
	s.checkAddresses(root)
	s.checkMembers(root)
	s.checkNamespace(root)
	s.checkCache(root)
	s.checkRoutes(root)
}

// onlyGateways tells whether the file is about gateways and nothing else; [tls] may be for metrics.
func (s *schema) onlyGateways(root *node) bool {
	if len(s.gates) == 0 {
		return false
	}
	for _, name := range []string{"listen", "http", "grpc", "shards", "order", "routes", "watch", "lease", "cache", "limits", "advertise", "members", "namespace", "registration"} {
		if root.kid(name) != nil {
			return false
		}
	}
	s.c.Listen = nil
	return true
}

// checkEmbedded checks a cluster, called what, that says embedded = true. homeless says
// that it has nowhere to keep its data.
func (s *schema) checkEmbedded(n *node, homeless bool, what string) {
	for _, name := range []string{
		"endpoints", "tls", "username", "password_file",
		"discovery_srv", "discovery_srv_name", "insecure_discovery", "discovery_interval", "auto_sync_interval",
	} {
		if kid := n.kid(name); kid != nil {
			s.wrong(kid, what+" is embedded, so this has no meaning", `take it out, or take out "embedded"`)
		}
	}
	if homeless {
		s.wrong(n.kid("embedded"), what+" is embedded and needs a directory for its data",
			`write data_dir = "data" at the top of the file`)
	}
}

// checkExternal checks a cluster, called what, that isn't embedded.
func (s *schema) checkExternal(sh *Shard, n *node, what string) {
	if e := n.kid("embedded"); e != nil && e.value != false {
		return // wrong already: nobody knows what it is
	}
	s.checkDiscovery(sh, n, what)
	if l := n.kid("listen"); l != nil {
		s.wrong(l, "only an embedded etcd listens", "write the addresses of the members as endpoints, or embedded = true")
	}
	s.together(n, "username", "password_file")
	if tls := n.kid("tls"); tls != nil && tls.table {
		s.together(tls, "cert", "key")
	}
	s.checkSchemes(sh, n)
}

// together checks that n has both or neither of two keys.
func (s *schema) together(n *node, one, other string) {
	if n.kid(one) == nil {
		one, other = other, one
	}
	if there := n.kid(one); there != nil && n.kid(other) == nil {
		s.wrong(there, fmt.Sprintf("there is no %q to go with it", other), "set both or neither")
	}
}

// checkSchemes checks that all members of a shard are reached in the same way: a
// password must not go over the one wire that isn't encrypted.
func (s *schema) checkSchemes(sh *Shard, n *node) {
	var https, http, bare int
	for _, e := range sh.Endpoints {
		switch scheme, _, _, _ := parseMember(e); scheme {
		case "https", "unixs":
			https++
		case "http", "unix":
			http++
		default:
			bare++
		}
	}
	tls := n.kid("tls")
	switch {
	case tls != nil && tls.table && len(tls.kids) == 0 && https == 0:
		s.wrong(tls, "the table is empty, so nothing says that TLS is wanted", "write https:// before the endpoints, or name a file")
	case tls != nil && http > 0:
		s.wrong(n.kid("endpoints"), "there is tls, and an endpoint with http:// or unix://", "write https:// or unixs://, or take tls out")
	case tls == nil && https > 0 && http+bare > 0:
		s.wrong(n.kid("endpoints"), "some endpoints are https:// or unixs:// and some are not", "write https:// before each of them, or before none")
	}
}
