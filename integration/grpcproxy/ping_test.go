package grpcproxy_test

import (
	"encoding/binary"
	"fmt"
	"io"
	"net"
	"slices"
	"testing"
	"time"
)

// pinger is a client of HTTP/2 that says no more than it has to (RFC 9113): gRPC's own does
// not ping as often as it takes to be sent away.
type pinger struct{ net.Conn }

// The frames that it knows.
const (
	settingsFrame = 4
	pingFrame     = 6
	goAwayFrame   = 7
)

func newPinger(t *testing.T, addr string) *pinger {
	t.Helper()
	c, err := net.Dial("tcp", addr)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	p := &pinger{c}
	if _, err := io.WriteString(c, "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"); err != nil {
		t.Fatal(err)
	}
	if err := p.frame(settingsFrame, 0, nil); err != nil {
		t.Fatal(err)
	}
	return p
}

// frame sends a frame of the connection.
func (p *pinger) frame(kind, flags byte, payload []byte) error {
	b := []byte{0, 0, byte(len(payload)), kind, flags, 0, 0, 0, 0}
	_, err := p.Write(append(b, payload...))
	return err
}

// next is the next frame of a kind; flags say whether it is an answer.
func (p *pinger) next(kind byte, within time.Duration) (flags byte, payload []byte, err error) {
	_, flags, payload, err = p.either(within, kind)
	return flags, payload, err
}

// either is the next frame of some kinds.
func (p *pinger) either(within time.Duration, kinds ...byte) (kind, flags byte, payload []byte, err error) {
	if err := p.SetReadDeadline(time.Now().Add(within)); err != nil {
		return 0, 0, nil, err
	}
	for {
		head := make([]byte, 9)
		if _, err := io.ReadFull(p, head); err != nil {
			return 0, 0, nil, err
		}
		payload := make([]byte, int(head[0])<<16|int(binary.BigEndian.Uint16(head[1:3])))
		if _, err := io.ReadFull(p, payload); err != nil {
			return 0, 0, nil, err
		}
		if slices.Contains(kinds, head[3]) {
			return head[3], head[4], payload, nil
		}
	}
}

// sentAway tells whether a client that pings so often is sent away, and how. Each ping waits for the
// answer to the last one: else they come at once where the server had to wait for its turn.
func sentAway(p *pinger, often time.Duration) (string, error) {
	for range 8 {
		_ = p.frame(pingFrame, 0, make([]byte, 8)) // if it is gone, what was said before comes first
		kind, _, payload, err := p.either(soon, pingFrame, goAwayFrame)
		switch {
		case err != nil:
			return "", err
		case kind == goAwayFrame && len(payload) >= 8:
			return fmt.Sprintf("code %d, %s", binary.BigEndian.Uint32(payload[4:8]), payload[8:]), nil
		}
		time.Sleep(often)
	}
	return "no", nil
}

// --grpc-keepalive-min-time: clients that ping more often are sent away, as by etcd.
func TestClientsThatPingTooOftenAreSentAway(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		name        string
		etcd, flags []string
		want        string
	}{
		{"by default", nil, nil, "code 11, too_many_pings"},
		{"if they may", []string{"--grpc-keepalive-min-time", "1ms"}, []string{"--grpc-keepalive-min-time", "1ms"}, ""},
	} {
		t.Run(c.name, func(t *testing.T) {
			var straightly string
			for _, name := range []string{straight, sharder} {
				d := open(t, name, &probe{etcd: c.etcd, flags: c.flags})
				got, err := sentAway(newPinger(t, d.addr), 20*time.Millisecond)
				if err != nil {
					t.Fatal(err)
				}
				if name == straight {
					straightly = got
				}
				if got != straightly || c.want != "" && got != c.want {
					t.Errorf("%s: sent away: %s; by etcd: %s", name, got, straightly)
				}
			}
		})
	}
}

// --grpc-keepalive-interval and --grpc-keepalive-timeout: a client that is silent is pinged, and
// left if it stays so.
func TestSilentClientsArePingedAndLeft(t *testing.T) {
	t.Parallel()
	d := open(t, sharder, &probe{flags: []string{"--grpc-keepalive-interval", "1s", "--grpc-keepalive-timeout", "4s"}})
	p := newPinger(t, d.addr)
	flags, payload, err := p.next(pingFrame, soon)
	if err != nil || flags != 0 {
		t.Fatalf("no ping: %v", err)
	}
	if err := p.frame(pingFrame, 1, payload); err != nil {
		t.Fatal(err)
	}
	answered := time.Now()
	if _, _, err := p.next(pingFrame, soon); err != nil {
		t.Fatalf("one that answers is pinged again: %v", err)
	}
	if _, _, err := p.next(settingsFrame+100, soon); err == nil { // which there is not: to the end
		t.Fatal("a frame that there is not")
	} else if e, ok := err.(net.Error); ok && e.Timeout() {
		t.Fatalf("one that does not answer is not left within %v", time.Since(answered))
	}
}
