package socket

import (
	"net"
	"path/filepath"
	"testing"

	"github.com/sharder/sharder/integration/leaks"
)

func TestMain(m *testing.M) { leaks.Main(m) }

// pair connects two ends of a network and gives them as they come from package net.
func pair(t testing.TB, network string) (a, b net.Conn) {
	t.Helper()
	address := "127.0.0.1:0"
	if network == "unix" {
		address = filepath.Join(t.TempDir(), "socket")
	}
	l, err := net.Listen(network, address)
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	if a, err = net.Dial(network, l.Addr().String()); err != nil {
		t.Fatal(err)
	}
	if b, err = l.Accept(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _, _ = a.Close(), b.Close() })
	return a, b
}

// both runs a test on each of the networks.
func both(t *testing.T, test func(t *testing.T, a, b net.Conn)) {
	for _, network := range []string{"tcp", "unix"} {
		t.Run(network, func(t *testing.T) {
			a, b := pair(t, network)
			test(t, a, b)
		})
	}
}
