package etcdproc

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
)

// etcdPackage is etcd's own main package, in the version of this module's go.mod.
const etcdPackage = "go.etcd.io/etcd/server/v3"

// binary builds etcd, once per version and user, and gives its path.
var binary = sync.OnceValues(func() (string, error) {
	if path := os.Getenv("ETCDPROC_BINARY"); path != "" {
		return path, nil
	}
	version, err := output("go", "list", "-m", "-f", "{{.Version}}", etcdPackage)
	if err != nil {
		return "", err
	}
	goversion, err := output("go", "env", "GOVERSION")
	if err != nil {
		return "", err
	}
	dir, err := os.UserCacheDir()
	if err != nil {
		dir = os.TempDir()
	}
	dir = filepath.Join(dir, "sharder-etcdproc")
	path := filepath.Join(dir, "etcd-"+version+"-"+goversion)
	if _, err := os.Stat(path); err == nil {
		return path, nil
	}
	return path, build(dir, path)
})

// build compiles to a file of its own and renames it: several test processes may do
// so at once, and none may run a half-written one.
func build(dir, path string) error {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return err
	}
	tmp, err := os.CreateTemp(dir, "building-")
	if err != nil {
		return err
	}
	defer os.Remove(tmp.Name())
	if err := tmp.Close(); err != nil {
		return err
	}
	if _, err := output("go", "build", "-o", tmp.Name(), etcdPackage); err != nil {
		return err
	}
	return os.Rename(tmp.Name(), path)
}

// output runs a command and gives what it prints; its errors carry its stderr.
func output(name string, args ...string) (string, error) {
	var errs strings.Builder
	cmd := exec.Command(name, args...)
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0") // as all tools are compiled, so that it is done once
	cmd.Stderr = &errs
	out, err := cmd.Output()
	if err != nil {
		return "", fmt.Errorf("%s %s: %w\n%s", name, strings.Join(args, " "), err, errs.String())
	}
	return strings.TrimSpace(string(out)), nil
}
