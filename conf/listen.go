package conf

import (
	"fmt"
	"strings"
)

// Listener is one address where etcd clients connect, or operators.
type Listener struct {
	// Network and Address are what net.Listen takes: "tcp" and host:port, or "unix" and the
	// path of a socket.
	Network, Address string
	// TLS says that they come over TLS.
	TLS bool
}

// Listeners are what Config.Listen means. An address without a scheme is served over TLS if
// there is a table [tls].
func (c *Config) Listeners() []Listener {
	all := make([]Listener, 0, len(c.Listen))
	for _, text := range c.Listen {
		l, _, _ := parseListener(text) // Parse has looked at it
		all = append(all, Listener{Network: l.network, Address: l.at, TLS: l.secure() || l.scheme == "" && c.TLS != nil})
	}
	return all
}

// Operators is what Config.Metrics means; ok is false if there is none. An address without a
// scheme is served in the clear, whether there is a table [tls] or not.
func (c *Config) Operators() (l Listener, ok bool) {
	if c.Metrics == "" {
		return l, false
	}
	l, _ = ParseListener(c.Metrics) // Parse has looked at it
	return l, true
}

// ParseListener reads an address as Config.Metrics has it.
func ParseListener(text string) (Listener, error) {
	p, what, remedy := parseListener(text)
	if what != "" {
		return Listener{}, fmt.Errorf("%s; %s", what, remedy)
	}
	return Listener{Network: p.network, Address: p.at, TLS: p.secure()}, nil
}

// maxSocketPath is how long the path of a socket may be: the system keeps 108 bytes on
// Linux, 104 elsewhere, and the last one is a NUL.
const maxSocketPath = 103

// listener is an address of listen taken apart.
type listener struct {
	scheme  string // http, https, unix, unixs or empty
	network string // tcp or unix
	at      string // for net.Listen
	address        // of a tcp one
}

// secure tells whether the scheme is one of TLS.
func (l listener) secure() bool { return l.scheme == "https" || l.scheme == "unixs" }

// parseListener takes an address of listen apart. The URLs are etcd's: unix://name is a
// socket in the working directory, as unix://localhost:2379 is. If it is none, what says why.
func parseListener(text string) (l listener, what, remedy string) {
	l.network, l.at = "tcp", text
	if before, after, ok := strings.Cut(text, "://"); ok {
		l.scheme, l.at = strings.ToLower(before), after
	}
	switch l.scheme {
	case "unix", "unixs":
		l.network = "unix"
		what, remedy = checkSocket(text, l.at)
		return l, what, remedy
	case "http", "https":
		l.at = strings.TrimSuffix(l.at, "/")
		if strings.ContainsAny(l.at, "@/?#") {
			return l, fmt.Sprintf("%q has more in it than a scheme, a host and a port", text), "write " + l.scheme + "://host:port"
		}
	case "":
		if rest, ok := strings.CutPrefix(text, "unix:"); ok {
			return l, fmt.Sprintf("%q is not host:port", text), fmt.Sprintf("write unix://%s for a socket", rest)
		}
	default:
		return l, fmt.Sprintf("%q has a scheme that isn't http, https, unix or unixs", text), "write host:port, https://host:port or unix:///path"
	}
	l.address, what, remedy = parseAddress(l.at, true)
	return l, what, remedy
}

// checkSocket says what is wrong with the path of a socket.
func checkSocket(text, path string) (what, remedy string) {
	switch {
	case path == "" || strings.HasSuffix(path, "/"):
		return fmt.Sprintf("%q does not name a file", text), "write unix:///run/sharder.sock"
	case strings.ContainsAny(path, "@?#\x00"):
		return fmt.Sprintf("%q has a character that no socket of etcd's has", text), "take @, ? and # out"
	case len(path) > maxSocketPath:
		return fmt.Sprintf("the path of the socket has %d bytes, more than the system takes", len(path)), fmt.Sprintf("choose one of at most %d", maxSocketPath)
	}
	return "", ""
}

// listeners reads where sharder listens.
func (s *schema) listeners(to *[]string) func(*node) {
	return func(n *node) {
		all, ok := s.list(n, `["127.0.0.1:2379"]`)
		for _, text := range all {
			if _, what, remedy := parseListener(text); what != "" {
				s.wrong(n, what, remedy)
				ok = false
			}
		}
		if !ok {
			all = nil // so that no later rule speaks of the default
		}
		*to = all
	}
}

// operators reads where operators come.
func (s *schema) operators(to *string) func(*node) {
	return func(n *node) {
		text, ok := s.str(n, n.value, `an address, such as "127.0.0.1:2381"`)
		if !ok {
			return
		}
		if _, what, remedy := parseListener(text); what != "" {
			s.wrong(n, what, remedy)
			return
		}
		*to = text
	}
}

// place is an address that sharder listens on, with its text and where that was written.
type place struct {
	Listener
	text string
	node *node
}

// places are those of clients, and that of operators.
func (s *schema) places(root *node) []place {
	var all []place
	for i, l := range s.c.Listeners() {
		all = append(all, place{l, s.c.Listen[i], root.kid("listen")})
	}
	if l, ok := s.c.Operators(); ok {
		all = append(all, place{l, s.c.Metrics, root.kid("metrics")})
	}
	return all
}

// checkListeners checks that there is a certificate for those who need one, and somebody who
// needs it.
func (s *schema) checkListeners(root *node) {
	secure := false
	sockets := map[string]bool{}
	for _, p := range s.places(root) {
		if p.Network == "unix" {
			if sockets[p.Address] {
				s.wrong(p.node, fmt.Sprintf("%s is an address of sharder itself already", p.Address), "write each address once")
			}
			sockets[p.Address] = true
		}
		secure = secure || p.TLS
		if p.TLS && s.c.TLS == nil {
			s.wrong(p.node, fmt.Sprintf("%q needs a certificate", p.text), "add a table [tls] with cert and key, or with auto = true")
		}
	}
	unread := root.kid("listen") != nil && len(s.c.Listen) == 0 || root.kid("metrics") != nil && s.c.Metrics == ""
	if table := root.kid("tls"); table != nil && !secure && !unread {
		s.wrong(table, "no address is served over TLS", "write https:// in listen or metrics, or take the table out")
	}
}
