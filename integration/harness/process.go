package harness

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/sourcegraph/conc"
)

// Process is a program that runs beside the test. It is killed when the test
// ends, if it has not ended by itself, and its output is logged if the test
// failed.
type Process struct {
	t    testing.TB
	name string
	cmd  *exec.Cmd
	wait conc.WaitGroup
	done chan struct{} // closed when the process has been waited for
	code int           // valid once done is closed

	// Stdout and Stderr are what the program printed.
	Stdout, Stderr *Output
}

// Run starts a program and returns at once. args[0] is its path.
func Run(t testing.TB, args ...string) *Process {
	t.Helper()
	p := &Process{t: t, name: filepath.Base(args[0]), done: make(chan struct{}), Stdout: NewOutput(), Stderr: NewOutput()}
	p.cmd = exec.Command(args[0], args[1:]...)
	p.cmd.Stdout, p.cmd.Stderr = p.Stdout, p.Stderr
	// Proxy settings of the machine must not reach loopback.
	p.cmd.Env = append(os.Environ(), "NO_PROXY=*", "no_proxy=*")
	p.cmd.SysProcAttr = childAttr()
	p.cmd.WaitDelay = 5 * time.Second // children of the child may hold its output open
	if err := p.cmd.Start(); err != nil {
		t.Fatalf("start %s: %v", p.name, err)
	}
	p.wait.Go(p.reap)
	t.Cleanup(p.cleanup)
	return p
}

// reap waits for the process and keeps its exit code.
func (p *Process) reap() {
	defer close(p.done)
	_ = p.cmd.Wait() // what it says is in the state
	p.code = p.cmd.ProcessState.ExitCode()
}

// cleanup ends the process with the test and reports what it had to say.
func (p *Process) cleanup() {
	p.Kill()
	for _, line := range p.Stderr.Lines() {
		if strings.Contains(line, "WARNING: DATA RACE") {
			p.t.Errorf("%s: data race inside the process", p.name)
			break
		}
	}
	if p.t.Failed() {
		p.t.Logf("%s (pid %d, exit %d) stdout:\n%s\nstderr:\n%s", p.name, p.Pid(), p.code, p.Stdout.tail(60), p.Stderr.tail(200))
	}
}

// Pid is the process id.
func (p *Process) Pid() int { return p.cmd.Process.Pid }

// Done is closed when the process has ended.
func (p *Process) Done() <-chan struct{} { return p.done }

// Signal sends a signal; a process that has ended ignores it.
func (p *Process) Signal(sig syscall.Signal) {
	// An error means that the process is gone, which callers learn from Wait.
	_ = p.cmd.Process.Signal(sig)
}

// Kill ends the process with SIGKILL and waits until it is gone.
func (p *Process) Kill() {
	p.Signal(syscall.SIGKILL)
	p.Signal(syscall.SIGCONT) // a stopped process is killed as well
	p.wait.Wait()
}

// Wait waits until the process ends by itself and gives its exit code (-1 if a
// signal ended it). The test fails if it takes longer than the bound.
func (p *Process) Wait(bound time.Duration) int {
	p.t.Helper()
	select {
	case <-p.done:
		return p.code
	case <-time.After(bound):
		p.t.Fatalf("%s still runs after %v", p.name, bound)
		return 0
	}
}

// WaitFor waits until the program has printed something that ok accepts, on
// stdout, and returns all of stdout. It fails the test when the bound passes or the
// process ends first.
func (p *Process) WaitFor(bound time.Duration, what string, ok func(stdout string) bool) string {
	p.t.Helper()
	return p.waitFor(p.Stdout, bound, what, ok)
}

// WaitText waits until stdout contains a text.
func (p *Process) WaitText(bound time.Duration, text string) string {
	p.t.Helper()
	return p.WaitFor(bound, "the text "+text, contains(text))
}

// WaitLog waits until stderr contains a text, and returns all of stderr. It fails the test as
// WaitFor does.
func (p *Process) WaitLog(bound time.Duration, text string) string {
	p.t.Helper()
	return p.waitFor(p.Stderr, bound, "the text "+text, contains(text))
}

func contains(text string) func(string) bool {
	return func(all string) bool { return strings.Contains(all, text) }
}

func (p *Process) waitFor(o *Output, bound time.Duration, what string, ok func(string) bool) string {
	p.t.Helper()
	timeout := time.After(bound)
	for {
		text, changed := o.snapshot()
		if ok(text) {
			return text
		}
		select {
		case <-changed:
		case <-p.done:
			if text := o.String(); ok(text) {
				return text
			}
			p.t.Fatalf("%s ended (exit %d) before %s; stdout:\n%s\nstderr:\n%s", p.name, p.code, what, p.Stdout.tail(40), p.Stderr.tail(40))
		case <-timeout:
			p.t.Fatalf("%s: %s not seen within %v; stdout:\n%s\nstderr:\n%s", p.name, what, bound, p.Stdout.tail(40), p.Stderr.tail(40))
		}
	}
}
