//go:build docker

package docker

import (
	"context"
	"crypto/rand"
	"encoding/hex"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/sharder/sharder/integration/harness"
)

// toolBound is how long one docker command may take; building an image copies some
// ten megabytes.
const toolBound = 2 * time.Minute

// run is the name of this test process, with which the names of all it makes begin, and
// label is on all of it.
var (
	run   = randomName("sharder-")
	label = "sharder-test=" + run
)

// randomName is short and unique.
func randomName(prefix string) string {
	b := make([]byte, 4)
	if _, err := rand.Read(b); err != nil {
		panic(err)
	}
	return prefix + hex.EncodeToString(b)
}

func TestMain(m *testing.M) {
	reap, err := startReaper()
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	code := m.Run()
	reap()
	harness.Cleanup()
	os.Exit(code)
}

// reaper removes what has a label when its input ends. Tests clean up after themselves;
// this is for the images, and for a test process that panicked, ran out of time, or was
// killed.
const reaper = `trap '' HUP INT TERM
cat >/dev/null
for id in $(docker ps -aq --filter "label=$0"); do docker rm -fv "$id"; done
for id in $(docker network ls -q --filter "label=$0"); do docker network rm "$id"; done
for id in $(docker images -q --filter "label=$0"); do docker rmi -f "$id"; done`

// startReaper starts one for this process, which it outlives if it has to, and gives the
// function that has it do its work and waits.
func startReaper() (reap func(), err error) {
	cmd := exec.Command("/bin/sh", "-c", reaper, label)
	var in io.WriteCloser
	if in, err = cmd.StdinPipe(); err != nil {
		return nil, err
	}
	if err := cmd.Start(); err != nil {
		return nil, err
	}
	return func() { in.Close(); _ = cmd.Wait() }, nil
}

// tool runs the docker tool and gives what it prints.
func tool(args ...string) (string, error) {
	ctx, cancel := context.WithTimeout(context.Background(), toolBound)
	defer cancel()
	cmd := exec.CommandContext(ctx, "docker", args...)
	// The classic builder is all that a single COPY needs, and always there.
	cmd.Env = append(os.Environ(), "DOCKER_BUILDKIT=0")
	out, err := cmd.CombinedOutput()
	return strings.TrimSpace(string(out)), err
}

// docker runs the docker tool and fails the test if it fails.
func docker(t testing.TB, args ...string) string {
	t.Helper()
	out, err := tool(args...)
	if err != nil {
		t.Fatalf("docker %s: %v\n%s", strings.Join(args, " "), err, out)
	}
	return out
}

// images holds the tags of those that were built in this process.
var images struct {
	sync.Mutex
	tags map[string]string
}

// image builds the image of a package's binary, once. The reaper removes it.
func image(t testing.TB, pkg string) string {
	t.Helper()
	images.Lock()
	defer images.Unlock()
	if tag := images.tags[pkg]; tag != "" {
		return tag
	}
	dir := t.TempDir()
	if err := os.Mkdir(filepath.Join(dir, "empty"), 0o777); err != nil {
		t.Fatal(err)
	}
	// A link would do, but not into the directory of another file system.
	program, err := os.ReadFile(harness.Static(t, pkg))
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(dir, "program"), program, 0o755); err != nil {
		t.Fatal(err)
	}
	tag := fmt.Sprint(run, "-", len(images.tags))
	docker(t, "build", "--quiet", "--label", label, "--tag", tag, "--file", "Dockerfile", dir)
	if images.tags == nil {
		images.tags = map[string]string{}
	}
	images.tags[pkg] = tag
	return tag
}

// network makes a network that is removed with the test. Into an internal one nothing
// comes from outside, and its containers' published ports are not reached through it.
func network(t testing.TB, options ...string) string {
	t.Helper()
	name := randomName(run + "-")
	docker(t, append(append([]string{"network", "create", "--label", label}, options...), name)...)
	t.Cleanup(func() { _, _ = tool("network", "rm", name) })
	return name
}
