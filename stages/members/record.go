package members

import (
	"encoding/json"
	"fmt"
	"net"
	"net/url"
	"strconv"
	"strings"
)

// record is the value of a key of a [Registry]: what clientv3/naming/endpoints keeps there.
type record struct {
	Op       uint8 // add is 0, delete 1
	Addr     string
	Metadata any
}

// meta is the metadata of a record, which is a string with JSON in it, as etcd grpc-proxy
// writes it. It writes the name alone.
type meta struct {
	Name   string `json:"name"`
	ID     string `json:"id,omitempty"`     // of the sharder, in hex: its addresses are one member
	Scheme string `json:"scheme,omitempty"` // how the address is reached
}

// records are those of a sharder, by address. An address has no scheme there, so that gRPC
// can dial it as it is.
func (s Self) records() map[string][]byte {
	out := make(map[string][]byte, len(s.Addresses))
	id := fmt.Sprintf("%x", idOf(s.Addresses...))
	for _, a := range s.Addresses {
		scheme, _, _ := strings.Cut(withScheme(a, s.scheme()), "://")
		about, _ := json.Marshal(meta{Name: s.Name, ID: id, Scheme: scheme}) // three strings: can't fail
		value, _ := json.Marshal(record{Addr: withoutScheme(a), Metadata: string(about)})
		out[withoutScheme(a)] = value
	}
	return out
}

// entry is one address that is registered.
type entry struct {
	id        uint64
	name, url string
}

// parse reads a record, of a sharder or of whoever else registers there; ok is false if
// there is no address in it that a client could use.
func parse(value []byte) (e entry, ok bool) {
	var r record
	if json.Unmarshal(value, &r) != nil || r.Op != 0 || !usable(r.Addr) {
		return e, false
	}
	var m meta
	if text, is := r.Metadata.(string); is {
		_ = json.Unmarshal([]byte(text), &m) // what is none says nothing
	}
	e = entry{id: idOf(r.Addr), name: m.Name, url: withScheme(r.Addr, m.Scheme)}
	if id, err := strconv.ParseUint(m.ID, 16, 64); err == nil && id != 0 {
		e.id = id
	}
	if e.name == "" {
		e.name = r.Addr // a client of etcd overlooks members without a name
	}
	return e, true
}

// usable tells whether a client of etcd can connect to an address.
func usable(address string) bool {
	if strings.Contains(address, "://") {
		u, err := url.Parse(address)
		switch {
		case err != nil:
			return false
		case u.Scheme == "unix" || u.Scheme == "unixs":
			return u.Host+u.Path != ""
		case u.Scheme != "http" && u.Scheme != "https" || u.User != nil:
			return false
		}
		address = u.Host
	}
	host, port, err := net.SplitHostPort(address)
	number, bad := strconv.ParseUint(port, 10, 16)
	if err != nil || bad != nil || number == 0 || host == "" {
		return false
	}
	ip := net.ParseIP(host)
	return !ip.IsUnspecified() && !strings.ContainsAny(host, " /\"")
}
