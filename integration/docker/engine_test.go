//go:build docker

package docker

import (
	"context"
	"crypto/rand"
	"encoding/hex"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/sharder/sharder/integration/harness"
)

// label marks everything these tests make, with the run it belongs to.
const label = "sharder-test"

// toolBound is how long one docker command may take; building an image copies some
// ten megabytes.
const toolBound = 2 * time.Minute

// run tells this test process's containers, networks and images from others'.
var run = randomName()

// randomName is short and unique.
func randomName() string {
	b := make([]byte, 4)
	if _, err := rand.Read(b); err != nil {
		panic(err)
	}
	return "sharder-" + hex.EncodeToString(b)
}

func TestMain(m *testing.M) {
	code := m.Run()
	// Tests clean up after themselves; this is for those that panicked.
	for _, kind := range [][]string{{"ps", "-aq"}, {"network", "ls", "-q"}, {"images", "-q"}} {
		out, _ := tool(append(kind, "--filter", "label="+label+"="+run)...)
		for _, id := range strings.Fields(out) {
			remove := map[string][]string{"ps": {"rm", "-fv"}, "network": {"network", "rm"}, "images": {"rmi", "-f"}}[kind[0]]
			_, _ = tool(append(remove, id)...)
		}
	}
	harness.Cleanup()
	os.Exit(code)
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

// image builds the image of a package's binary. It is removed with the test.
func image(t testing.TB, name, pkg string) string {
	t.Helper()
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
	tag := run + "-" + name
	docker(t, "build", "--quiet", "--label", label+"="+run, "--tag", tag, "--file", "Dockerfile", dir)
	t.Cleanup(func() { _, _ = tool("rmi", "-f", tag) })
	return tag
}

// network makes a network that is removed with the test.
func network(t testing.TB) string {
	t.Helper()
	name := run + "-" + strings.TrimPrefix(randomName(), "sharder-")
	docker(t, "network", "create", "--label", label+"="+run, name)
	t.Cleanup(func() { _, _ = tool("network", "rm", name) })
	return name
}

// container is one container. It is removed with the test, and its log is shown if
// the test failed.
type container struct {
	t       testing.TB
	name    string
	network string
}

// create makes a container on a network, known there by its name, without starting
// it. The options are docker's, the args the program's.
func create(t testing.TB, network, name, image string, options, args []string) *container {
	t.Helper()
	c := &container{t: t, name: network + "-" + name, network: network}
	all := append([]string{"create", "--name", c.name, "--network", network, "--network-alias", name, "--label", label + "=" + run}, options...)
	docker(t, append(append(all, image), args...)...)
	t.Cleanup(c.remove)
	return c
}

// remove ends the container.
func (c *container) remove() {
	if c.t.Failed() {
		log, _ := tool("logs", "--tail", "60", c.name)
		c.t.Logf("%s:\n%s", c.name, log)
	}
	_, _ = tool("rm", "-fv", c.name)
}

// do runs a docker command on the container: start, stop, kill, pause, unpause.
func (c *container) do(command string, options ...string) {
	c.t.Helper()
	docker(c.t, append(append([]string{command}, options...), c.name)...)
}

// cutOff takes the container off its network; it runs on, and reaches nobody.
func (c *container) cutOff() {
	c.t.Helper()
	docker(c.t, "network", "disconnect", c.network, c.name)
}

// rejoin puts it back, under the name others know.
func (c *container) rejoin(alias string) {
	c.t.Helper()
	docker(c.t, "network", "connect", "--alias", alias, c.network, c.name)
}

// published is the loopback address that leads to a port of the container.
func (c *container) published(port string) string {
	c.t.Helper()
	first, _, _ := strings.Cut(docker(c.t, "port", c.name, port), "\n")
	return first
}
