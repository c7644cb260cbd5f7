// Command wal appends to a write-ahead log of etcd's in a directory that it makes, as etcd does
// for a put, and prints how long that took. It is what sidebyside's tests build with a slower
// disk, since a whole etcd takes a minute.
package main

import (
	"fmt"
	"os"
	"time"

	"go.uber.org/zap"

	"go.etcd.io/etcd/server/v3/storage/wal"
	"go.etcd.io/raft/v3/raftpb"
)

func main() {
	if err := run(os.Args[1]); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

func run(dir string) error {
	w, err := wal.Create(zap.NewNop(), dir, nil)
	if err != nil {
		return err
	}
	defer w.Close()
	begin := time.Now()
	err = w.Save(&raftpb.HardState{}, []*raftpb.Entry{{}})
	fmt.Println(time.Since(begin))
	return err
}
