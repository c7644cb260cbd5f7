package main

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
)

// binaries are the programs that are compared.
type binaries struct{ etcd, sharder string }

// buildBinaries compiles them into dir with the Go tool that is on the path. It works
// from anywhere inside the module.
func buildBinaries(ctx context.Context, dir string) (binaries, error) {
	b := binaries{filepath.Join(dir, "etcd"), filepath.Join(dir, "sharder")}
	for _, p := range []struct{ pkg, out string }{
		{"go.etcd.io/etcd/server/v3", b.etcd},
		{"github.com/sharder/sharder/cmd/sharder", b.sharder},
	} {
		cmd := exec.CommandContext(ctx, "go", "build", "-o", p.out, p.pkg)
		cmd.Env = append(os.Environ(), "CGO_ENABLED=0")
		if text, err := cmd.CombinedOutput(); err != nil {
			return b, fmt.Errorf("go build %s: %w\n%s", p.pkg, err, text)
		}
	}
	return b, nil
}
