package socket

import (
	"io"
	"net"
	"testing"

	"github.com/sourcegraph/conc"
)

// BenchmarkRoundTrip is 64 bytes there and back over TCP, as package net reads and writes, and as a
// Conn does. Both ends are in one process and take turns, so what differs is the way into the system.
func BenchmarkRoundTrip(b *testing.B) {
	for name, wrap := range map[string]func(net.Conn) net.Conn{
		"net":    func(c net.Conn) net.Conn { return c },
		"socket": func(c net.Conn) net.Conn { return Wrap(c) },
	} {
		b.Run(name, func(b *testing.B) {
			here, there := pair(b, "tcp")
			a, c := wrap(here), wrap(there)
			var wg conc.WaitGroup
			wg.Go(func() { _, _ = io.CopyBuffer(struct{ io.Writer }{c}, struct{ io.Reader }{c}, make([]byte, 64)) })
			p := make([]byte, 64)
			b.ReportAllocs()
			for b.Loop() {
				if _, err := a.Write(p); err != nil {
					b.Fatal(err)
				}
				if _, err := io.ReadFull(a, p); err != nil {
					b.Fatal(err)
				}
			}
			_ = a.Close()
			wg.Wait()
		})
	}
}
