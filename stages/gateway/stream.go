package gateway

import (
	"errors"
	"io"
	"sync"

	"github.com/sharder/sharder/stages/socket"
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

// buffers are all of one size, and for whoever has something to pass on.
type buffers struct{ pool sync.Pool }

var frames = buffers{sync.Pool{New: func() any { return new(make([]byte, bufferBytes)) }}}

// Get gives a buffer, whatever size is asked for.
func (b *buffers) Get(int) *[]byte { return b.pool.Get().(*[]byte) }

// Put takes it back.
func (b *buffers) Put(p *[]byte) { b.pool.Put(p) }

// stream copies until from ends, which is no error, or either fails.
func stream(to, from *socket.Conn) (total int64, err error) {
	for {
		buf, n, err := from.ReadOnReady(bufferBytes, &frames)
		if buf != nil {
			var failed error
			n, failed = to.Write((*buf)[:n])
			frames.Put(buf)
			total += int64(n)
			err = errors.Join(failed, err)
		}
		if err == nil && n == bufferBytes {
			var moved int64
			moved, err = io.Copy(to.Conn, io.LimitReader(from.Conn, spliceBytes))
			total += moved
		}
		switch {
		case errors.Is(err, io.EOF):
			return total, nil
		case err != nil:
			return total, err
		}
	}
}
