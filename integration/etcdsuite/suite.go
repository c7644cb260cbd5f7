//go:build unix

package main

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os/exec"
	"path"
	"strings"
	"syscall"
	"time"
)

// packages are those of etcd's tests that start etcd as processes.
var packages = []string{"./common", "./e2e"}

// event is a line of `go test -json`.
type event struct {
	Action, Package, ImportPath, Test, Output string
	Elapsed                                   float64
}

// account is what came of a run.
type account struct {
	endings  map[string]ending
	said     map[string]*strings.Builder // by test; "" and the package for what belongs to none
	packages map[string]ending           // those that ended
}

// runSuite runs the tests that one pattern is for and the other is not, one package after the other since
// they use the same ports. Each end of a test is a line on progress.
func (b bench) runSuite(ctx context.Context, pattern, skip string, progress io.Writer) (*account, error) {
	args := []string{"test", "-json", "-count=1", "-p", "1", "-timeout", "60m", "-tags", "cluster_proxy,e2e", "-run", pattern, "-skip", skip}
	cmd := command(ctx, b.tests(), "go", append(args, packages...)...)
	cmd.Env = append(cmd.Env, "TMPDIR="+b.temporary())
	cmd.Stderr = progress
	// The tests end with the go tool, and what they started with the terminals that they gave it.
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	cmd.Cancel = func() error { return syscall.Kill(-cmd.Process.Pid, syscall.SIGKILL) }
	cmd.WaitDelay = 10 * time.Second
	lines, err := cmd.StdoutPipe()
	if err != nil {
		return nil, err
	}
	if err := cmd.Start(); err != nil {
		return nil, err
	}
	a, readErr := read(lines, progress)
	err = cmd.Wait()
	if exit := (*exec.ExitError)(nil); errors.As(err, &exit) && ctx.Err() == nil {
		err = nil // tests failed: judge knows whether they may
	}
	return a, errors.Join(ctx.Err(), readErr, err)
}

// read keeps what `go test -json` says.
func read(from io.Reader, progress io.Writer) (*account, error) {
	a := &account{endings: map[string]ending{}, said: map[string]*strings.Builder{}, packages: map[string]ending{}}
	lines := bufio.NewReader(from)
	for {
		line, err := lines.ReadBytes('\n')
		if len(line) > 0 {
			var e event
			if err := json.Unmarshal(line, &e); err != nil {
				return a, fmt.Errorf("%q: %w", line, err)
			}
			a.note(e, progress)
		}
		if err == io.EOF {
			return a, nil
		}
		if err != nil {
			return a, err
		}
	}
}

func (a *account) note(e event, progress io.Writer) {
	name := e.name()
	switch e.Action {
	case "run":
		a.endings[name] = never
	case "output", "build-output":
		if a.said[name] == nil {
			a.said[name] = &strings.Builder{}
		}
		a.said[name].WriteString(e.Output)
	case "pass", "fail", "skip":
		if e.Test == "" {
			a.packages[name] = ending(e.Action)
			return
		}
		a.endings[name] = ending(e.Action)
		fmt.Fprintf(progress, "%-4s %6.1fs  %s\n", e.Action, e.Elapsed, name)
	}
}

// name is that of a test with its package in front, such as common.TestAuthority, or that
// of a package alone.
func (e event) name() string {
	pkg := path.Base(e.Package)
	if e.Package == "" {
		pkg = e.ImportPath
	}
	if e.Test == "" {
		return pkg
	}
	return pkg + "." + e.Test
}

// broken gives the packages that did not end, or failed though no test did (it was not
// built, it left goroutines behind), and that nothing ran.
func (a *account) broken() (all []wrong) {
	for _, p := range packages {
		pkg := path.Base(p)
		end, ended := a.packages[pkg]
		switch {
		case !ended:
			all = append(all, wrong{pkg, "did not end"})
		case end == failed && !a.anyFailed(pkg+"."):
			all = append(all, wrong{pkg, "failed, though no test did"})
		}
	}
	if len(a.endings) == 0 {
		all = append(all, wrong{"", "no test ran"})
	}
	return all
}

// onlyThrough tells whether a test failed because a part of it did, which is judged itself.
func (a *account) onlyThrough(test string) bool { return a.anyFailed(test + "/") }

func (a *account) anyFailed(prefix string) bool {
	for name, end := range a.endings {
		if strings.HasPrefix(name, prefix) && (end == failed || end == never) {
			return true
		}
	}
	return false
}
