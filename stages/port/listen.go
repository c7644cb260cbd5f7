package port

import (
	"errors"
	"fmt"
	"io/fs"
	"net"
	"os"
	"syscall"
	"time"
)

// Listen listens on "tcp" host:port or on "unix" path. A socket that a process left behind
// that is gone is removed; one that somebody listens on, and a file that is no socket, is an
// error. Closing the listener removes its socket.
func Listen(network, address string) (net.Listener, error) {
	if network == "unix" {
		if err := removeStale(address); err != nil {
			return nil, err
		}
	}
	return net.Listen(network, address)
}

// removeStale removes the socket at path if nobody listens there.
func removeStale(path string) error {
	info, err := os.Lstat(path)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return nil
	case err != nil:
		return err
	case info.Mode().Type() != fs.ModeSocket:
		return fmt.Errorf("%s is there already, and is no socket", path)
	}
	c, err := net.DialTimeout("unix", path, time.Second)
	switch {
	case err == nil:
		_ = c.Close()
		return fmt.Errorf("%s: somebody listens there already", path)
	case errors.Is(err, syscall.ECONNREFUSED):
		return os.Remove(path)
	default: // such as a queue that is full: somebody is there
		return fmt.Errorf("%s is there already: %w", path, err)
	}
}
