//go:build !linux

package socket

import (
	"net"
	"time"
)

// GiveUpAfter is for Linux; elsewhere the system decides.
func GiveUpAfter(net.Conn, time.Duration) error { return nil }
