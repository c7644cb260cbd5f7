package socket

import (
	"net"
	"syscall"
	"unsafe"
)

// arrived waits until the end of a connection, or its reset, has come from the other side: on a busy
// machine the system may take its time, though both are here.
func arrived(c net.Conn) {
	raw, err := c.(syscall.Conn).SyscallConn()
	if err != nil {
		return
	}
	_ = raw.Control(func(fd uintptr) {
		for err := error(syscall.EINTR); err == syscall.EINTR; {
			var read syscall.FdSet
			bits := 8 * unsafe.Sizeof(read.Bits[0])
			read.Bits[fd/bits] |= 1 << (fd % bits)
			_, err = syscall.Select(int(fd)+1, &read, nil, nil, &syscall.Timeval{Sec: 30})
		}
	})
}
