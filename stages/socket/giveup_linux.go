package socket

import (
	"net"
	"syscall"
	"time"
)

// userTimeout is TCP_USER_TIMEOUT of tcp(7), which package syscall doesn't name on all machines.
const userTimeout = 18

// GiveUpAfter has a connection of TCP end when what was sent stays without an acknowledgement for
// so long, which the system else would wait for some 15 minutes; with 0 or less it stays as it is. gRPC
// does so itself, but only to connections whose type it knows.
func GiveUpAfter(c net.Conn, d time.Duration) error {
	t, ok := c.(*net.TCPConn)
	if !ok || d <= 0 {
		return nil
	}
	raw, err := t.SyscallConn()
	if err != nil {
		return err
	}
	var failed error
	err = raw.Control(func(fd uintptr) {
		failed = syscall.SetsockoptInt(int(fd), syscall.IPPROTO_TCP, userTimeout, int(max(1, d.Milliseconds())))
	})
	if err != nil {
		return err
	}
	return failed
}
