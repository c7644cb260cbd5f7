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
// takes a buffer only then. As long as what comes is shorter than the buffer it is read and
// written, which for the small frames of gRPC costs two system calls. What fills the buffer is
// the beginning of something large: then the kernel moves the next bytes itself, where it can
// (splice).
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
	f := frames{to: to}
	step := f.pass
	for {
		err := raw.Read(step)
		switch {
		case err != nil:
			return total + f.total, err
		case errors.Is(f.err, io.EOF):
			return total + f.total, nil
		case f.err != nil:
			return total + f.total, f.err
		}
		n, err := io.Copy(to, io.LimitReader(from, spliceBytes))
		total += n
		if err != nil {
			return total + f.total, err
		}
	}
}

// frames passes on what is short.
type frames struct {
	to    net.Conn
	total int64
	err   error // why it ended; io.EOF at the end of the stream, nil if something large comes
}

// pass is for syscall.RawConn.Read, which calls it again when there is something to read. It
// returns true when it has ended. It reads until there is nothing: an end of stream that came
// with the last bytes would not be told of again.
func (f *frames) pass(fd uintptr) bool {
	buf := buffers.Get().(*[bufferBytes]byte)
	defer buffers.Put(buf)
	for {
		n, err := readAgain(int(fd), buf[:])
		switch {
		case errors.Is(err, syscall.EAGAIN):
			return false
		case err == nil && n == 0:
			err = io.EOF
		case err == nil:
			_, err = f.to.Write(buf[:n])
			f.total += int64(n)
		}
		if f.err = err; err != nil || n == bufferBytes {
			return true
		}
	}
}

// readAgain reads, however often a signal interrupts it.
func readAgain(fd int, p []byte) (int, error) {
	for {
		n, err := syscall.Read(fd, p)
		if !errors.Is(err, syscall.EINTR) {
			return max(0, n), err
		}
	}
}
