//go:build unix

// Standin is the etcd that the suite gets: etcd itself, but for `etcd grpc-proxy`, which is
// sharder with the same arguments. Both lie beside it; it counts how often it was sharder.
package main

import (
	"fmt"
	"os"
	"path/filepath"
	"syscall"
)

func main() {
	if err := become(os.Args); err != nil {
		fmt.Fprintln(os.Stderr, "standin:", err)
		os.Exit(1)
	}
}

// become puts the program that the arguments ask for in the place of this one, with its
// process id: whoever started it signals and waits for that one.
func become(args []string) error {
	self, err := os.Executable()
	if err != nil {
		return err
	}
	dir, name := filepath.Dir(self), "etcd.own"
	if len(args) > 1 && args[1] == "grpc-proxy" {
		name = "sharder"
		if err := count(filepath.Join(dir, "starts")); err != nil {
			return err
		}
	}
	return syscall.Exec(filepath.Join(dir, name), append([]string{name}, args[1:]...), os.Environ())
}

// count makes the file longer by a byte.
func count(path string) error {
	f, err := os.OpenFile(path, os.O_APPEND|os.O_CREATE|os.O_WRONLY, 0o600)
	if err != nil {
		return err
	}
	defer f.Close()
	_, err = f.Write([]byte{'.'})
	return err
}
