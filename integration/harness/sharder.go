package harness

import (
	"context"
	"os"
	"path/filepath"
	"syscall"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
)

// startBound is how long a sharder may take until it serves: three embedded etcds
// elect their leaders meanwhile, perhaps under the race detector on a busy machine.
const startBound = 90 * time.Second

// drainBound is how long sharder may take from SIGTERM to its end, embedded etcds
// included.
const drainBound = 30 * time.Second

// Sharder is one sharder process and what it was started with. It ends with the
// test. One test uses it from one goroutine; its clients may be used from many.
type Sharder struct {
	t    testing.TB
	proc *Process
	path string // the configuration file

	// Endpoint is host:port for etcd clients; it survives a restart.
	Endpoint string
}

// Start writes the configuration, starts sharder and returns when it serves.
func Start(t testing.TB, c Conf) *Sharder {
	t.Helper()
	s := Launch(t, c)
	s.WaitServing()
	return s
}

// Launch is Start without the wait: for tests in which sharder can't serve yet, or
// shall refuse to.
func Launch(t testing.TB, c Conf) *Sharder {
	t.Helper()
	c = c.filled(t)
	path := filepath.Join(t.TempDir(), "sharder.toml")
	if err := os.WriteFile(path, []byte(c.Text()), 0o600); err != nil {
		t.Fatal(err)
	}
	s := &Sharder{t: t, path: path, Endpoint: c.Listen}
	s.run()
	return s
}

// StartFile starts sharder on a file that is there, whose address the caller knows,
// and returns when it serves.
func StartFile(t testing.TB, path, listen string) *Sharder {
	t.Helper()
	s := &Sharder{t: t, path: path, Endpoint: listen}
	s.run()
	s.WaitServing()
	return s
}

// run starts the process.
func (s *Sharder) run() {
	s.t.Helper()
	s.proc = Run(s.t, Binary(s.t, SharderPackage), "--conf", s.path)
}

// Process is the process that runs at the moment; a restart makes another one.
func (s *Sharder) Process() *Process { return s.proc }

// ConfPath is the configuration file.
func (s *Sharder) ConfPath() string { return s.path }

// WaitServing waits until a linearizable read of a key is answered. It fails the
// test if sharder ends or does not serve in time.
func (s *Sharder) WaitServing() {
	s.t.Helper()
	conn, err := grpc.NewClient("passthrough:///"+s.Endpoint, grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		s.t.Fatal(err)
	}
	defer conn.Close()
	deadline := time.Now().Add(startBound)
	for {
		ctx, cancel := context.WithTimeout(context.Background(), 2*time.Second)
		_, err := pb.NewKVClient(conn).Range(ctx, &pb.RangeRequest{Key: []byte("a")})
		cancel()
		if err == nil {
			return
		}
		select {
		case <-s.proc.Done():
			s.t.Fatalf("sharder ended before it served: exit %d", s.proc.Wait(time.Second))
		case <-time.After(50 * time.Millisecond):
		}
		if time.Now().After(deadline) {
			s.t.Fatalf("sharder does not serve after %v: %v", startBound, err)
		}
	}
}

// Kill ends sharder with SIGKILL: nothing of it gets a chance to clean up.
func (s *Sharder) Kill() { s.proc.Kill() }

// Pause freezes sharder until Resume: it does nothing, and its connections stay open.
func (s *Sharder) Pause() { s.proc.Signal(syscall.SIGSTOP) }

// Resume lets a paused sharder go on where it was.
func (s *Sharder) Resume() { s.proc.Signal(syscall.SIGCONT) }

// Stop asks sharder to end, as an operator does, and fails the test unless it exits
// with 0 within the bound that a drain may take.
func (s *Sharder) Stop() {
	s.t.Helper()
	s.proc.Signal(syscall.SIGTERM)
	if code := s.proc.Wait(drainBound); code != 0 {
		s.t.Fatalf("sharder exited with %d after SIGTERM", code)
	}
}

// Again starts sharder on the same file, addresses and data, after Kill or a stop,
// and returns when it serves.
func (s *Sharder) Again() {
	s.t.Helper()
	s.run()
	s.WaitServing()
}
