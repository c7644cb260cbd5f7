package harness

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"go.uber.org/goleak"
)

// The packages that a test can ask Binary for.
const (
	SharderPackage = "github.com/sharder/sharder/cmd/sharder"
	EtcdctlPackage = "go.etcd.io/etcd/etcdctl/v3"
	EtcdPackage    = "go.etcd.io/etcd/server/v3"
)

// bin holds what was built in this test process. Main removes it.
var bin struct {
	sync.Mutex
	dir   string
	built map[kind]*build
}

// kind is what a binary is built from, and how.
type kind struct {
	pkg  string
	race bool
}

// build is one binary, made by the first test that asks for it.
type build struct {
	once sync.Once
	path string
	err  error
}

// Main runs the tests of a package, fails it if a goroutine is left, and removes the
// binaries they built. It is called from TestMain and does not return.
func Main(m *testing.M) {
	goleak.VerifyTestMain(m, goleak.Cleanup(func(code int) {
		Cleanup()
		os.Exit(code)
	}))
}

// Cleanup removes the binaries built in this process; for packages whose TestMain
// has more to do than Main.
func Cleanup() {
	bin.Lock()
	defer bin.Unlock()
	if bin.dir != "" {
		os.RemoveAll(bin.dir)
		bin.dir, bin.built = "", nil
	}
}

// Binary gives the path of the program of a package, which is built first if no
// test of this process has asked for it. Tools (etcdctl, etcd) are built static
// and without the race detector, sharder with it if the tests have it.
func Binary(t testing.TB, pkg string) string {
	t.Helper()
	return built(t, pkg, raceEnabled && pkg == SharderPackage)
}

// Static is Binary without the race detector whatever the tests have: a binary that
// runs where there is nothing else.
func Static(t testing.TB, pkg string) string {
	t.Helper()
	return built(t, pkg, false)
}

// built builds a package once per process and kind.
func built(t testing.TB, pkg string, race bool) string {
	t.Helper()
	kind := kind{pkg, race}
	b, dir := entry(t, kind)
	b.once.Do(func() { b.path, b.err = compile(dir, kind) })
	if b.err != nil {
		t.Fatal(b.err)
	}
	return b.path
}

// entry finds or makes the place of a binary in the table.
func entry(t testing.TB, k kind) (*build, string) {
	t.Helper()
	bin.Lock()
	defer bin.Unlock()
	if bin.dir == "" {
		dir, err := os.MkdirTemp("", "sharder-test-")
		if err != nil {
			t.Fatal(err)
		}
		bin.dir, bin.built = dir, map[kind]*build{}
	}
	if bin.built[k] == nil {
		bin.built[k] = &build{}
	}
	return bin.built[k], bin.dir
}

// compile runs the go tool from the module's root.
func compile(dir string, k kind) (string, error) {
	root, err := Root()
	if err != nil {
		return "", err
	}
	out := filepath.Join(dir, strings.NewReplacer("/", "_", ".", "_").Replace(k.pkg))
	args := []string{"build", "-o", out}
	env := append(os.Environ(), "CGO_ENABLED=0")
	if k.race {
		out += "_race"
		args, env = []string{"build", "-race", "-o", out}, os.Environ()
	}
	cmd := exec.Command("go", append(args, k.pkg)...)
	cmd.Dir, cmd.Env = root, env
	if text, err := cmd.CombinedOutput(); err != nil {
		return "", fmt.Errorf("go build %s: %v\n%s", k.pkg, err, text)
	}
	return out, nil
}

// moduleLine is how the go.mod of this module begins.
const moduleLine = "module github.com/sharder/sharder\n"

// Root is the directory of this module's go.mod, found upwards from the working
// directory (go test runs each package in its own). A module inside this one, which has
// a go.mod of its own, is passed over: sharder is built with what sharder requires.
func Root() (string, error) {
	dir, err := os.Getwd()
	if err != nil {
		return "", err
	}
	for {
		if mod, err := os.ReadFile(filepath.Join(dir, "go.mod")); err == nil && strings.HasPrefix(string(mod), moduleLine) {
			return dir, nil
		}
		up := filepath.Dir(dir)
		if up == dir {
			return "", fmt.Errorf("no go.mod of sharder above the working directory")
		}
		dir = up
	}
}
