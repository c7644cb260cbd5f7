package conf

import (
	"fmt"
	"strings"
	"time"
)

// The words for Config.Members, the default first.
const (
	MembersSharders = "sharders"
	MembersShard    = "shard"
)

// maxAdvertise bounds the addresses of one sharder.
const maxAdvertise = 16

// Registration is the table [registration]: how sharders let others know of them.
type Registration struct {
	// Prefix (prefix) is where sharders register, a key PREFIX/ADDRESS for each address, in
	// the form of etcd's naming. Empty: with one shard nobody registers, over several
	// sharders know of each other by keys of their own.
	Prefix string
	// TTL (ttl) is how long a sharder that died is still listed: whole seconds.
	TTL time.Duration
}

// registrationFields are the keys of [registration].
func (s *schema) registrationFields(r *Registration) fields {
	return fields{
		"prefix": {read: s.text(&r.Prefix, `a prefix of keys, such as "sharders"`)},
		"ttl":    {read: s.duration(&r.TTL, time.Second, day)},
	}
}

// registration reads [registration].
func (s *schema) registration(n *node) {
	r := &s.c.Registration
	s.walk(n, s.registrationFields(r))
	prefix, ttl := n.kid("prefix"), n.kid("ttl")
	if prefix != nil && ttl == nil {
		s.wrong(prefix, `there is no "ttl" to go with it`, `write ttl = "15s", the time for which a sharder that died is still listed`)
	}
	if ttl != nil && r.TTL%time.Second != 0 {
		s.wrong(ttl, fmt.Sprintf("%q is not a whole number of seconds", ttl.value), `write one, such as "15s"`)
	}
}

// advertised reads the addresses at which clients reach this sharder.
func (s *schema) advertised(n *node) {
	all, ok := s.list(n, `["sharder1.example.com:2379"]`)
	if len(all) > maxAdvertise {
		s.wrong(n, fmt.Sprintf("there are %d addresses", len(all)), fmt.Sprintf("name those of this one sharder, at most %d", maxAdvertise))
		ok = false
	}
	for i, text := range all {
		_, a, what, remedy := parseEndpoint(text)
		for _, before := range all[:i] {
			if _, b, _, _ := parseEndpoint(before); what == "" && a == b {
				what, remedy = fmt.Sprintf("%q is there twice", text), "take one of the two out"
			}
		}
		if what != "" {
			s.wrong(n, what, remedy)
			ok = false
		}
	}
	if ok {
		s.c.Advertise = all
	}
}

// Advertised gives the addresses at which clients everywhere reach this sharder:
// Advertise, or those of Listen that mean the same on every machine. There may be none.
func (c *Config) Advertised() []string {
	if len(c.Advertise) > 0 {
		return c.Advertise
	}
	var all []string
	for _, text := range c.Listen {
		text = strings.TrimSuffix(text, "/")
		if _, a, what, _ := parseEndpoint(text); what == "" && !a.loopback() {
			all = append(all, text)
		}
	}
	return all
}

// checkMembers checks what the file says of sharder as a member, once its shards are known.
func (s *schema) checkMembers(root *node) {
	c := s.c
	single := len(c.Shards) == 1 && c.Order == nil
	if n := root.kid("members"); n != nil && c.Members == MembersShard && !single {
		s.wrong(n, "clients that are told the members of a shard leave sharder, and there are several clusters", `take it out, or write members = "sharders"`)
	}
	n := root.kid("registration")
	if n == nil || !n.table || !single {
		return
	}
	switch {
	case n.kid("prefix") == nil:
		s.wrong(n, "with one shard sharder writes nothing of its own accord, and here is no prefix", `write prefix = "sharders", or take the table out`)
	case len(c.Advertised()) == 0 && root.kid("advertise") == nil && c.Listen != nil:
		s.wrong(n, "there is no address to register: "+strings.Join(c.Listen, ", ")+" means another place on each machine", `write advertise = ["sharder1.example.com:2379"] at the top of the file`)
	}
}
