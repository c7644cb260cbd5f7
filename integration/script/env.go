package script

import (
	"context"
	"fmt"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
)

// How long a script waits. callBound also covers a lease's expiry, which an expect
// may wait for.
const (
	callBound  = 30 * time.Second
	quietBound = 300 * time.Millisecond
)

// Server is what a script runs on.
type Server struct {
	Name     string
	Shape    Shape
	Endpoint string
	// Restart stops the server, with SIGKILL if kill is set, and starts it again at
	// the same endpoint. It returns when the server serves.
	Restart func(kill bool)
	// Compact is where compactions go, if not to Endpoint: a namespace has no history of
	// its own.
	Compact string
}

// Run is what a script did on one server.
type Run struct {
	Server  string
	Replies [][]Line // by statement
	Wrong   []string // replies that are not what the file says
}

// env is a script while it runs on a server.
type env struct {
	server  Server
	shape   Shape
	conn    *grpc.ClientConn
	vars    map[string]int64
	leases  leases
	streams map[string]*stream
	watches map[string]*watcher
	wrong   []string // what streams that are closed had left
}

// Execute runs a script. An error is one of the script itself; replies that differ
// from what the file says are in the result.
func Execute(s *Script, server Server) (*Run, error) {
	e := &env{server: server, shape: server.Shape, vars: map[string]int64{},
		streams: map[string]*stream{}, watches: map[string]*watcher{}}
	if err := e.dial(); err != nil {
		return nil, err
	}
	defer func() { e.conn.Close() }()
	run := &Run{Server: server.Name}
	for _, st := range s.Statements {
		want := st.Expect
		if st.differsOn(server.Shape) {
			want = st.DiffersExpect
		}
		lines, err := e.statement(st, len(want))
		if err != nil {
			e.closeStreams()
			return nil, fmt.Errorf("%s:%d: %w", s.Name, st.Line, err)
		}
		run.Replies = append(run.Replies, lines)
		if st.sortedOn(server.Shape) {
			want = sorted(want)
		}
		if wrong, err := e.check(want, lines); err != nil {
			e.closeStreams()
			return nil, fmt.Errorf("%s:%d: %w", s.Name, st.Line, err)
		} else if wrong != "" && want != nil {
			run.Wrong = append(run.Wrong, fmt.Sprintf("%s:%d: on %s: %s\n  %s\n%s", s.Name, st.Line, server.Name, st.Text, wrong, show(lines)))
		}
	}
	e.closeStreams()
	for _, wrong := range e.wrong {
		run.Wrong = append(run.Wrong, fmt.Sprintf("%s: on %s: %s", s.Name, server.Name, wrong))
	}
	return run, nil
}

// check is match with the script's own errors caught.
func (e *env) check(want, got []Line) (wrong string, err error) {
	defer catch(&err)
	return e.match(want, got), nil
}

// catch turns a failure into an error.
func catch(err *error) {
	switch f := recover().(type) {
	case nil:
	case failure:
		*err = f.err
	default:
		panic(f)
	}
}

// dial connects to the server.
func (e *env) dial() error {
	conn, err := dial(e.server.Endpoint)
	e.conn = conn
	return err
}

func dial(endpoint string) (*grpc.ClientConn, error) {
	const any = 1<<31 - 1
	return grpc.NewClient("passthrough:///"+endpoint,
		grpc.WithTransportCredentials(insecure.NewCredentials()),
		grpc.WithDefaultCallOptions(grpc.MaxCallRecvMsgSize(any), grpc.MaxCallSendMsgSize(any)))
}

// statement runs one statement and gives its reply.
func (e *env) statement(st *Statement, want int) (lines []Line, err error) {
	defer catch(&err)
	ctx, cancel := context.WithTimeout(context.Background(), callBound)
	defer cancel()
	c := &call{env: e, ctx: ctx, st: st, args: newArgs(e, st.Words[1:]), want: want}
	return commands[st.Words[0].Text](c), nil
}

// restart restarts the server; streams and the connection are made anew.
func (e *env) restart(kill bool) {
	e.closeStreams()
	e.conn.Close()
	e.server.Restart(kill)
	if err := e.dial(); err != nil {
		fail("dial: %v", err)
	}
}

// closeStreams ends every Watch call, and keeps what was wrong with them: lines that
// no statement took, and what no etcd would send.
func (e *env) closeStreams() {
	if len(e.streams) > 0 {
		time.Sleep(quietBound / 3) // what comes too much comes late
	}
	for name, w := range e.watches {
		if left := w.in.drain(); len(left) > 0 {
			e.wrong = append(e.wrong, fmt.Sprintf("watch %s received what no expectation asked for:\n%s", name, show(left)))
		}
	}
	for name, s := range e.streams {
		s.close()
		for _, w := range s.wrong {
			e.wrong = append(e.wrong, fmt.Sprintf("stream %s: %s", name, w))
		}
	}
	e.streams, e.watches = map[string]*stream{}, map[string]*watcher{}
}
