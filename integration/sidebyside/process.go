package main

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"syscall"
	"time"

	"github.com/sourcegraph/conc"
)

// stopBound is how long a process may take to end in order before it is killed.
const stopBound = 15 * time.Second

// process is a program that was started. Its output goes to a file. Whoever started it
// stops it, once.
type process struct {
	name string
	log  string // path of its output
	cmd  *exec.Cmd
	wait conc.WaitGroup
	done chan struct{} // closed when it has ended and was waited for
}

// start runs a program in dir, where its output goes to NAME.log.
func start(dir, name, path string, args ...string) (*process, error) {
	p := &process{name: name, log: filepath.Join(dir, name+".log"), done: make(chan struct{})}
	out, err := os.Create(p.log)
	if err != nil {
		return nil, err
	}
	defer out.Close() // the child has its own
	p.cmd = exec.Command(path, args...)
	p.cmd.Dir, p.cmd.Stdout, p.cmd.Stderr = dir, out, out
	p.cmd.Env = append(os.Environ(), "NO_PROXY=*", "no_proxy=*")
	p.cmd.SysProcAttr = childAttr()
	if err := p.cmd.Start(); err != nil {
		return nil, fmt.Errorf("start %s: %w", name, err)
	}
	p.wait.Go(func() {
		defer close(p.done)
		_ = p.cmd.Wait() // how it ended matters to nobody: early ends show in done
	})
	return p, nil
}

// stop asks the process to end, kills it if it doesn't, and returns when it is gone.
func (p *process) stop() {
	_ = p.cmd.Process.Signal(syscall.SIGTERM)
	select {
	case <-p.done:
	case <-time.After(stopBound):
		_ = p.cmd.Process.Kill()
	}
	p.wait.Wait()
}

// ended is an error with the end of the output if the process is no longer there.
func (p *process) ended() error {
	select {
	case <-p.done:
		return fmt.Errorf("%s ended: %v\n%s", p.name, p.cmd.ProcessState, p.tail())
	default:
		return nil
	}
}

// tail is the end of what the process printed.
func (p *process) tail() string {
	text, _ := os.ReadFile(p.log)
	return string(text[max(0, len(text)-2000):])
}
