package conf

import (
	"fmt"
	"net"
	"net/netip"
	"strconv"
	"strings"
)

// maxMembers bounds the endpoints of a shard; clusters of etcd have up to seven members.
const maxMembers = 64

// address is a host and a port in the one spelling by which two can be compared.
type address struct {
	host string // lower case; localhost is 127.0.0.1, every address of the machine is ""
	port int
}

// address reads one place to listen; example is the remedy for what is no string.
func (s *schema) address(to *string, example string) func(*node) {
	return func(n *node) {
		text, ok := s.str(n, n.value, fmt.Sprintf("an address, such as %q", example))
		if !ok {
			return
		}
		if _, what, remedy := parseAddress(text, true); what != "" {
			s.wrong(n, what, remedy)
			return
		}
		*to = text
	}
}

// endpoints reads the members of a cluster, which may listen on sockets if that is of use.
func (s *schema) endpoints(to *[]string, sockets bool) func(*node) {
	return func(n *node) {
		all, ok := s.list(n, `["10.0.0.1:2379", "10.0.0.2:2379"]`)
		if len(all) > maxMembers {
			s.wrong(n, fmt.Sprintf("there are %d endpoints", len(all)), fmt.Sprintf("name the members of one etcd cluster, at most %d", maxMembers))
			ok = false
		}
		for _, text := range all {
			parse := parseEndpoint
			if sockets {
				parse = parseMember
			}
			if _, _, what, remedy := parse(text); what != "" {
				s.wrong(n, what, remedy)
				ok = false
			}
		}
		if ok {
			*to = all
		}
	}
}

// parseMember is parseEndpoint with sockets, which have no address: scheme is "unix" or "unixs"
// then.
func parseMember(text string) (scheme string, a address, what, remedy string) {
	before, path, _ := strings.Cut(text, "://")
	if scheme = strings.ToLower(before); scheme == "unix" || scheme == "unixs" {
		what, remedy = checkSocket(text, path)
		return scheme, a, what, remedy
	}
	return parseEndpoint(text)
}

// parseEndpoint takes an endpoint apart. scheme is "http", "https" or empty. If it
// is none, what says why.
func parseEndpoint(text string) (scheme string, a address, what, remedy string) {
	rest := text
	if before, after, ok := strings.Cut(text, "://"); ok {
		scheme, rest = strings.ToLower(before), after
		if scheme != "http" && scheme != "https" {
			return "", a, fmt.Sprintf("%q has a scheme that isn't http or https", text), "write host:port or https://host:port"
		}
	}
	if strings.Contains(rest, "@") { // not shown: there may be a password before it
		return "", a, `an endpoint has an "@" in it`, "write host:port, and use username and password_file for credentials"
	}
	if strings.ContainsAny(rest, "/?#") {
		return "", a, fmt.Sprintf("%q has more in it than a scheme, a host and a port", text), "write host:port or https://host:port"
	}
	a, what, remedy = parseAddress(rest, false)
	return scheme, a, what, remedy
}

// parseAddress takes host:port apart. An address to listen on may leave out the
// host and have port 0. If it is none, what says why.
func parseAddress(text string, listen bool) (a address, what, remedy string) {
	if strings.Contains(text, "://") {
		return a, fmt.Sprintf("%q is a URL, want host:port", text), "take out everything up to the //"
	}
	host, port, err := net.SplitHostPort(text)
	if err != nil {
		remedy = "write an address such as 127.0.0.1:2379"
		if _, err := netip.ParseAddr(text); err == nil {
			remedy = "write " + net.JoinHostPort(text, "2379")
		}
		return a, fmt.Sprintf("%q is not host:port", text), remedy
	}
	low := 1
	if listen {
		low = 0
	}
	number, err := strconv.Atoi(port)
	if err != nil || !digits(port) || number < low || number > 65535 {
		return a, fmt.Sprintf("%q has no port from %d to 65535 behind the colon", text, low), "write one, such as 2379"
	}
	host, ok := canonical(host)
	if !ok || host == "" && !listen {
		return a, fmt.Sprintf("%q does not name one host before the port", text), "write an address such as 10.0.0.1:2379"
	}
	return address{host: host, port: number}, "", ""
}

// canonical is the spelling of host that address has, or false if it is no host.
func canonical(host string) (string, bool) {
	host = strings.ToLower(strings.TrimSuffix(host, "."))
	if host == "localhost" {
		host = "127.0.0.1"
	}
	if ip, err := netip.ParseAddr(host); err == nil {
		if ip = ip.Unmap(); ip.IsUnspecified() {
			return "", true
		}
		return ip.String(), true
	}
	if strings.Trim(host, "0123456789.") == "" {
		return "", host == "" // an IP address with a slip in it, or no host at all
	}
	letters := strings.Trim(host, "abcdefghijklmnopqrstuvwxyz0123456789-_.")
	return host, letters == "" && !strings.Contains(host, "..") && !strings.HasPrefix(host, ".") && !strings.HasPrefix(host, "-")
}

// loopback reports whether a can only be on this machine.
func (a address) loopback() bool {
	ip, err := netip.ParseAddr(a.host)
	return err == nil && ip.IsLoopback()
}
