//go:build unix

package gateway

import (
	"errors"
	"io"
	"net"
	"sync"
	"syscall"
)

// A direction that is silent holds nothing: it waits until there is something to read and
// takes a buffer only then. As long as what comes fits the buffer it is read and written, which for
// the small frames of gRPC costs two system calls. What fills the buffer is the beginning
// of something large: then the kernel moves the next bytes itself, where it can (splice).
const (
	bufferBytes = 16 << 10
	spliceBytes = 1 << 20
)

var buffers = sync.Pool{New: func() any { return new([bufferBytes]byte) }}

// stream copies until from ends, which is no error, or either fails.
func stream(to, from net.Conn) (total int64, err error) {
	sc, ok := from.(syscall.Conn)
	if !ok {
		return io.Copy(to, from)
	}
	raw, err := sc.SyscallConn()
	if err != nil {
		return 0, err
	}
	for {
		n, full, err := step(raw, to)
		total += n
		if errors.Is(err, io.EOF) {
			return total, nil
		}
		if err != nil {
			return total, err
		}
		if !full {
			continue
		}
		n, err = io.Copy(to, io.LimitReader(from, spliceBytes))
		total += n
		if err != nil {
			return total, err
		}
	}
}

// step passes on what is there, waiting for it. full tells that there may be much more.
func step(raw syscall.RawConn, to net.Conn) (n int64, full bool, err error) {
	var buf *[bufferBytes]byte
	defer func() {
		if buf != nil {
			buffers.Put(buf)
		}
	}()
	var got int
	var readErr error
	err = raw.Read(func(fd uintptr) bool {
		buf = buffers.Get().(*[bufferBytes]byte)
		got, readErr = ignoringEINTR(int(fd), buf[:])
		if errors.Is(readErr, syscall.EAGAIN) {
			buffers.Put(buf)
			buf = nil
			return false
		}
		return true
	})
	switch {
	case err != nil:
		return 0, false, err
	case readErr != nil:
		return 0, false, readErr
	case got == 0:
		return 0, false, io.EOF
	}
	_, err = to.Write(buf[:got])
	return int64(got), got == bufferBytes, err
}

func ignoringEINTR(fd int, p []byte) (int, error) {
	for {
		n, err := syscall.Read(fd, p)
		if !errors.Is(err, syscall.EINTR) {
			return n, err
		}
	}
}
