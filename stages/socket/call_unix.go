//go:build unix && (!linux || race)

package socket

import "syscall"

// direct says that silent connections can be waited for without a buffer.
const direct = true

// read reads from a socket that doesn't block, in the callback of a syscall.RawConn. The race
// detector knows from syscall.Read what happened before.
func read(fd uintptr, p []byte) (int, error) { return again(syscall.Read, fd, p) }

// write is read's counterpart.
func write(fd uintptr, p []byte) (int, error) { return again(syscall.Write, fd, p) }

func again(call func(int, []byte) (int, error), fd uintptr, p []byte) (int, error) {
	for {
		n, err := call(int(fd), p)
		if err != syscall.EINTR { // a signal came first
			return max(0, n), err
		}
	}
}
