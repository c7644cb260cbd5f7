package gateway

import (
	"net"

	"github.com/sourcegraph/conc"

	"github.com/sharder/sharder/stages/socket"
)

// relay is one connection of a client and the one it is passed on to.
type relay struct {
	in, out        *socket.Conn
	received, sent int64 // bytes; set when run returns
}

func newRelay(in, out net.Conn) *relay { return &relay{in: socket.Wrap(in), out: socket.Wrap(out)} }

// run copies in both directions until both have ended, and closes both connections. An
// end of stream in one direction is passed on and leaves the other one alone: a client may
// have said all it had to say and wait for the answer. A direction that fails ends both.
func (r *relay) run() {
	defer r.close()
	var wg conc.WaitGroup
	wg.Go(func() { r.sent = r.pass(r.in, r.out) })
	r.received = r.pass(r.out, r.in)
	wg.Wait()
}

func (r *relay) pass(to, from *socket.Conn) int64 {
	n, err := stream(to, from)
	if err == nil {
		err = to.CloseWrite() // nothing more comes
	}
	if err != nil {
		r.close()
	}
	return n
}

func (r *relay) close() {
	_ = r.in.Close()
	_ = r.out.Close()
}
