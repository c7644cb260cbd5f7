// Package dnstest is a DNS server for tests, of SRV records and of nothing else.
package dnstest

import (
	"context"
	"encoding/binary"
	"net"
	"strconv"
	"strings"
	"sync"
	"testing"

	"github.com/sourcegraph/conc"
)

// Names is a DNS server of SRV records, as much of one as a resolver needs to get them. It
// ends with the test; its methods may be called from any goroutine.
type Names struct {
	conn net.PacketConn

	mu     sync.Mutex
	srv    map[string][]net.SRV // by name, as in _etcd-client._tcp.example.com.
	broken map[string]bool      // names that are answered with a failure
	asked  int
}

// New starts a server that knows nothing yet.
func New(t testing.TB) *Names {
	t.Helper()
	c, err := net.ListenPacket("udp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	d := &Names{conn: c, srv: map[string][]net.SRV{}, broken: map[string]bool{}}
	var wg conc.WaitGroup
	wg.Go(d.serve)
	t.Cleanup(func() {
		_ = c.Close()
		wg.Wait()
	})
	return d
}

// Record points to a port of the loopback interface. Its target is localhost: records hold
// names.
func Record(t testing.TB, addr string) net.SRV {
	t.Helper()
	_, port, err := net.SplitHostPort(addr)
	if err != nil {
		t.Fatal(err)
	}
	n, err := strconv.ParseUint(port, 10, 16)
	if err != nil {
		t.Fatal(err)
	}
	return net.SRV{Target: "localhost.", Port: uint16(n)}
}

// name is where the records of a service of example.com are.
func name(service string) string { return "_" + service + "._tcp.example.com." }

// Set replaces the records of a service of example.com.
func (d *Names) Set(service string, records ...net.SRV) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.srv[name(service)] = records
	d.broken[name(service)] = false
}

// Break has questions for a service fail until the next Set.
func (d *Names) Break(service string) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.broken[name(service)] = true
}

// Asked is how many questions there were.
func (d *Names) Asked() int {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.asked
}

// Resolver asks this server and no other.
func (d *Names) Resolver() *net.Resolver {
	return &net.Resolver{PreferGo: true, Dial: func(ctx context.Context, _, _ string) (net.Conn, error) {
		var dialer net.Dialer
		return dialer.DialContext(ctx, "udp", d.conn.LocalAddr().String())
	}}
}

func (d *Names) serve() {
	b := make([]byte, 4096)
	for {
		n, from, err := d.conn.ReadFrom(b)
		if err != nil {
			return
		}
		if answer := d.answer(b[:n]); answer != nil {
			_, _ = d.conn.WriteTo(answer, from)
		}
	}
}

// answer builds the answer to a query with one question (RFC 1035, RFC 2782).
func (d *Names) answer(q []byte) []byte {
	if len(q) < 12 {
		return nil
	}
	name, end := "", 12
	for end < len(q) && q[end] > 0 {
		name += string(q[end+1:end+1+int(q[end])]) + "."
		end += 1 + int(q[end])
	}
	end += 5 // the end of the name, type and class
	d.mu.Lock()
	records, broken := d.srv[name], d.broken[name]
	d.asked++
	d.mu.Unlock()
	if broken {
		records = nil
	}
	out := append([]byte(nil), q[:end]...)
	flags, count := uint16(0x8180), len(records)
	switch {
	case broken:
		flags |= 2 // server failure
	case count == 0:
		flags |= 3 // no such name
	}
	binary.BigEndian.PutUint16(out[2:], flags)
	binary.BigEndian.PutUint16(out[6:], uint16(count))
	binary.BigEndian.PutUint32(out[8:], 0) // no other sections
	for _, r := range records {
		var target []byte
		for _, label := range strings.Split(strings.TrimSuffix(r.Target, "."), ".") {
			target = append(append(target, byte(len(label))), label...)
		}
		target = append(target, 0)
		out = append(out, 0xc0, 12, 0, 33, 0, 1, 0, 0, 0, 1) // the question's name, SRV, IN, for a second
		for _, n := range []uint16{uint16(6 + len(target)), r.Priority, r.Weight, r.Port} {
			out = binary.BigEndian.AppendUint16(out, n)
		}
		out = append(out, target...)
	}
	return out
}
