//go:build linux && !race

package socket

import (
	"syscall"
	"unsafe"
)

// direct says that there is something to gain.
const direct = true

// read reads from a socket that doesn't block, in the callback of a syscall.RawConn: there the
// descriptor stays open. It is syscall.Read without word to the scheduler.
func read(fd uintptr, p []byte) (int, error) { return call(syscall.SYS_READ, fd, p) }

// write is read's counterpart.
func write(fd uintptr, p []byte) (int, error) { return call(syscall.SYS_WRITE, fd, p) }

func call(number, fd uintptr, p []byte) (int, error) {
	for {
		n, _, errno := syscall.RawSyscall(number, fd, uintptr(unsafe.Pointer(unsafe.SliceData(p))), uintptr(len(p)))
		switch errno {
		case 0:
			return int(n), nil
		case syscall.EINTR: // a signal came first
		default:
			return 0, errno
		}
	}
}
