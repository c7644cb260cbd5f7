package harness

import (
	"bytes"
	"context"
	"errors"
	"os"
	"os/exec"
	"strings"
	"testing"
	"time"
)

// toolBound is how long a command that answers once may take.
const toolBound = 30 * time.Second

// Result is what a command that ran to its end left.
type Result struct {
	Stdout, Stderr string
	Code           int
}

// Etcdctl runs stock etcdctl against an endpoint until it ends.
func Etcdctl(t testing.TB, endpoint string, args ...string) Result {
	t.Helper()
	return Command(t, etcdctl(t, endpoint, args)...)
}

// etcdctl is the command line of a command that answers once. Its own bounds, of two and five seconds,
// are too narrow for a busy machine.
func etcdctl(t testing.TB, endpoint string, args []string) []string {
	t.Helper()
	return append([]string{Binary(t, EtcdctlPackage), "--endpoints", endpoint, "--dial-timeout", "20s", "--command-timeout", "25s"}, args...)
}

// Follow starts an etcdctl command that does not end by itself (watch, lease
// keep-alive). Flags of etcdctl, like the command, are in args.
func Follow(t testing.TB, endpoint string, args ...string) *Process {
	t.Helper()
	return Run(t, append([]string{Binary(t, EtcdctlPackage), "--endpoints", endpoint}, args...)...)
}

// Command runs a program until it ends.
func Command(t testing.TB, args ...string) Result {
	t.Helper()
	return command(t, "", args...)
}

// command runs a program until it ends, with an input.
func command(t testing.TB, input string, args ...string) Result {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), toolBound)
	defer cancel()
	cmd := exec.CommandContext(ctx, args[0], args[1:]...)
	cmd.Stdin = strings.NewReader(input)
	var stdout, stderr bytes.Buffer
	cmd.Stdout, cmd.Stderr = &stdout, &stderr
	cmd.Env = append(os.Environ(), "NO_PROXY=*", "no_proxy=*")
	err := cmd.Run()
	res := Result{Stdout: stdout.String(), Stderr: stderr.String()}
	var exit *exec.ExitError
	switch {
	case err == nil:
	case ctx.Err() != nil:
		t.Fatalf("%v: no end after %v\n%s%s", args, toolBound, res.Stdout, res.Stderr)
	case errors.As(err, &exit):
		res.Code = exit.ExitCode()
	default:
		t.Fatalf("%v: %v", args, err)
	}
	return res
}

// EtcdctlInput is Etcdctl with a text on its standard input.
func EtcdctlInput(t testing.TB, endpoint, input string, args ...string) Result {
	t.Helper()
	return command(t, input, etcdctl(t, endpoint, args)...)
}
