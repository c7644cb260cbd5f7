//go:build !linux

package socket

import (
	"net"
	"time"
)

// arrived waits until the end of a connection, or its reset, has come from the other side, most likely.
func arrived(net.Conn) { time.Sleep(10 * time.Millisecond) }
