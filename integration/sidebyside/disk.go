package main

import (
	"errors"
	"os"
	"time"
)

// diskProbes is how many fsyncs are timed.
const diskProbes = 300

// measureDisk tells how long the disk below dir takes to make a small append durable, as
// etcd's log does it: write, then fdatasync or fsync.
func measureDisk(dir string) (r result, err error) {
	f, err := os.CreateTemp(dir, "sidebyside-disk-")
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, f.Close(), os.Remove(f.Name())) }()
	var samples []time.Duration
	for range diskProbes {
		if _, err := f.Write(make([]byte, 512)); err != nil {
			return nil, err
		}
		begin := time.Now()
		if err := f.Sync(); err != nil {
			return nil, err
		}
		samples = append(samples, time.Since(begin))
	}
	r = result{}
	r.latency(samples)
	return r, nil
}
