package main

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"time"
)

// binaries are the programs that are compared.
type binaries struct{ etcd, sharder string }

const etcdPackage = "go.etcd.io/etcd/server/v3"

// buildBinaries compiles them into dir with the Go tool that is on the path. It works
// from anywhere inside the module. etcd's log takes slower longer to be on the disk than
// it does by itself, if that is not 0.
func buildBinaries(ctx context.Context, dir string, slower time.Duration) (binaries, error) {
	b := binaries{filepath.Join(dir, "etcd"), filepath.Join(dir, "sharder")}
	flags, err := slowFlags(ctx, dir, slower)
	if err != nil {
		return b, err
	}
	if err := build(ctx, b.etcd, etcdPackage, flags...); err != nil {
		return b, err
	}
	return b, build(ctx, b.sharder, "github.com/sharder/sharder/cmd/sharder")
}

// slowFlags are those with which the Go tool finds an etcd whose log is slower.
func slowFlags(ctx context.Context, dir string, slower time.Duration) ([]string, error) {
	if slower <= 0 {
		return nil, nil
	}
	modfile, err := slowDisk(ctx, dir, slower)
	return []string{"-modfile", modfile}, err
}

func build(ctx context.Context, out, pkg string, flags ...string) error {
	args := append([]string{"build", "-o", out}, flags...)
	cmd := exec.CommandContext(ctx, "go", append(args, pkg)...)
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0")
	if text, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("go build %s: %w\n%s", pkg, err, text)
	}
	return nil
}

// namedBuild is a sharder that somebody else has built, such as that of another commit.
type namedBuild struct{ name, path string }

// parseBuilds reads name=path, comma separated.
func parseBuilds(text string) ([]namedBuild, error) {
	if text == "" {
		return nil, nil
	}
	var all []namedBuild
	for part := range strings.SplitSeq(text, ",") {
		name, path, ok := strings.Cut(part, "=")
		if !ok || name == "" || path == "" {
			return nil, fmt.Errorf("-builds: %q is not name=path", part)
		}
		full, err := filepath.Abs(path)
		if err != nil {
			return nil, err
		}
		all = append(all, namedBuild{name, full})
	}
	return all, nil
}
