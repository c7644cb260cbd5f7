package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"time"
)

// What makes etcd's log durable on Linux: its write-ahead log calls Fdatasync for each
// batch of proposals.
const (
	syncModule = "go.etcd.io/etcd/client/pkg/v3"
	syncFile   = "fileutil/sync_linux.go"
)

// slowDisk makes a copy of the module in dir in which each fdatasync of etcd's log takes
// longer by a time, and a go.mod (for -modfile, go help build) that replaces the module
// by the copy. It returns the path of the latter. Nothing else of etcd is changed.
func slowDisk(ctx context.Context, dir string, slower time.Duration) (string, error) {
	module, err1 := goTool(ctx, "list", "-m", "-f", "{{.Dir}}", syncModule)
	gomod, err2 := goTool(ctx, "env", "GOMOD")
	if err := errors.Join(err1, err2); err != nil {
		return "", err
	}
	replaced := filepath.Join(dir, "slowdisk")
	if err := os.CopyFS(replaced, os.DirFS(module)); err != nil {
		return "", err
	}
	if err := delaySync(filepath.Join(replaced, syncFile), slower); err != nil {
		return "", err
	}
	text, err1 := os.ReadFile(gomod)
	sums, err2 := os.ReadFile(strings.TrimSuffix(gomod, "mod") + "sum")
	if err := errors.Join(err1, err2); err != nil {
		return "", err
	}
	modfile := filepath.Join(dir, "slowdisk.mod")
	text = fmt.Appendf(text, "\nreplace %s => %s\n", syncModule, replaced)
	return modfile, errors.Join(
		os.WriteFile(modfile, text, 0o600),
		os.WriteFile(filepath.Join(dir, "slowdisk.sum"), sums, 0o600),
	)
}

// delaySync changes the copy.
func delaySync(file string, slower time.Duration) error {
	text, err := os.ReadFile(file)
	if err != nil {
		return err
	}
	const call, imports = "\treturn syscall.Fdatasync(int(f.Fd()))\n", "\t\"syscall\"\n"
	if n, m := strings.Count(string(text), call), strings.Count(string(text), imports); n != 1 || m != 1 {
		return fmt.Errorf("%s is not as expected: %d times %q, %d times %q", file, n, call, m, imports)
	}
	delayed := fmt.Sprintf("\tdefer time.Sleep(%d)\n", slower) + call
	changed := strings.NewReplacer(call, delayed, imports, imports+"\t\"time\"\n").Replace(string(text))
	if err := os.Remove(file); err != nil { // it may be read-only, as in the module cache
		return err
	}
	return os.WriteFile(file, []byte(changed), 0o600)
}

// goTool asks the Go tool something.
func goTool(ctx context.Context, args ...string) (string, error) {
	out, err := exec.CommandContext(ctx, "go", args...).Output()
	if err != nil {
		return "", fmt.Errorf("go %s: %w", strings.Join(args, " "), err)
	}
	return strings.TrimSpace(string(out)), nil
}
