//go:build unix

package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
)

const (
	sharderModule = "github.com/sharder/sharder"
	apiModule     = "go.etcd.io/etcd/api/v3" // has the version of all modules of etcd
	testsModule   = "go.etcd.io/etcd/tests/v3"
)

// sampleConfig stands for a file of etcd's tree that is in no module. A test starts an etcd with
// it, and leaves the data of that one to others.
const sampleConfig = "name: 'default'\n"

// bench is a directory with etcd's tests in tests/, the programs in bin/, where the tests
// look for them, and what they leave in tmp/.
type bench struct{ dir string }

func (b bench) tests() string              { return filepath.Join(b.dir, "tests") }
func (b bench) temporary() string          { return filepath.Join(b.dir, "tmp") }
func (b bench) program(name string) string { return filepath.Join(b.dir, "bin", name) }

// setUp makes a bench in dir for one of the proxies.
func setUp(ctx context.Context, dir, proxy string) (bench, error) {
	b := bench{dir}
	if err := os.Mkdir(b.temporary(), 0o700); err != nil {
		return b, err
	}
	version, err := output(ctx, "", "go", "list", "-m", "-f", "{{.Version}}", apiModule)
	if err != nil {
		return b, err
	}
	if err := b.copyTests(ctx, version); err != nil {
		return b, err
	}
	own := "etcd"
	if proxy == "sharder" {
		own = "etcd.own"
		if err := b.build(ctx, "", "etcd", sharderModule+"/integration/etcdsuite/standin"); err != nil {
			return b, err
		}
		if err := b.build(ctx, "", "sharder", sharderModule+"/cmd/sharder"); err != nil {
			return b, err
		}
	}
	return b, errors.Join(
		b.build(ctx, b.tests(), own, "go.etcd.io/etcd/server/v3"),
		b.build(ctx, b.tests(), "etcdctl", "go.etcd.io/etcd/etcdctl/v3"),
		b.build(ctx, b.tests(), "etcdutl", "go.etcd.io/etcd/etcdutl/v3"),
	)
}

// copyTests copies the tests out of the module cache. Their go.mod looks for the rest of etcd
// beside them; without these lines it is taken from the module cache in the same version.
func (b bench) copyTests(ctx context.Context, version string) error {
	text, err := output(ctx, os.TempDir(), "go", "mod", "download", "-json", testsModule+"@"+version)
	if err != nil {
		return err
	}
	var module struct{ Dir string }
	if err := json.Unmarshal([]byte(text), &module); err != nil {
		return err
	}
	for _, part := range []string{"go.mod", "go.sum", "common", "e2e", "fixtures", "framework"} {
		if err := copyTree(filepath.Join(module.Dir, part), filepath.Join(b.tests(), part)); err != nil {
			return err
		}
	}
	if err := os.WriteFile(filepath.Join(b.dir, "etcd.conf.yml.sample"), []byte(sampleConfig), 0o600); err != nil {
		return err
	}
	return b.dropReplacements(ctx)
}

// copyTree is os.CopyFS for a file or directory that is read-only.
func copyTree(from, to string) error {
	return filepath.WalkDir(from, func(path string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		target := filepath.Join(to, strings.TrimPrefix(path, from))
		if d.IsDir() {
			return os.MkdirAll(target, 0o755)
		}
		text, err := os.ReadFile(path)
		if err != nil {
			return err
		}
		if err := os.MkdirAll(filepath.Dir(target), 0o755); err != nil {
			return err
		}
		return os.WriteFile(target, text, 0o600)
	})
}

func (b bench) dropReplacements(ctx context.Context) error {
	text, err := output(ctx, b.tests(), "go", "mod", "edit", "-json")
	if err != nil {
		return err
	}
	var mod struct {
		Replace []struct{ Old struct{ Path string } }
	}
	if err := json.Unmarshal([]byte(text), &mod); err != nil {
		return err
	}
	args := []string{"mod", "edit", "-toolchain=none"} // the one that builds sharder
	for _, r := range mod.Replace {
		args = append(args, "-dropreplace="+r.Old.Path)
	}
	_, err = output(ctx, b.tests(), "go", args...)
	return err
}

// build compiles a package of the module in dir to a program of the bench.
func (b bench) build(ctx context.Context, dir, program, pkg string) error {
	_, err := output(ctx, dir, "go", "build", "-o", b.program(program), pkg)
	return err
}

// started is how often the stand-in became sharder.
func (b bench) started() int64 {
	info, err := os.Stat(b.program("starts"))
	if err != nil {
		return 0
	}
	return info.Size()
}

// command is one whose module is that in dir. In the tests' module it may add to go.sum.
func command(ctx context.Context, dir, name string, args ...string) *exec.Cmd {
	cmd := exec.CommandContext(ctx, name, args...)
	cmd.Dir = dir
	cmd.Env = append(os.Environ(), "GOWORK=off", "CGO_ENABLED=0")
	if dir != "" {
		cmd.Env = append(cmd.Env, "GOFLAGS="+strings.TrimSpace(os.Getenv("GOFLAGS")+" -mod=mod"))
	}
	return cmd
}

// output runs a command and gives what it prints; its errors carry its stderr.
func output(ctx context.Context, dir, name string, args ...string) (string, error) {
	var errs strings.Builder
	cmd := command(ctx, dir, name, args...)
	cmd.Stderr = &errs
	text, err := cmd.Output()
	if err != nil {
		return "", fmt.Errorf("%s %s: %w\n%s", name, strings.Join(args, " "), err, errs.String())
	}
	return strings.TrimSpace(string(text)), nil
}
