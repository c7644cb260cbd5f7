package main

import (
	"bytes"
	"context"
	"errors"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"
)

func TestABarIsMetOrMissedByTheMedian(t *testing.T) {
	b := &book{rows: []row{{workload: workload{name: "put-N"}, cells: []cell{
		{target: "shards-1", rounds: []result{{rate: 100}, {rate: 100}, {rate: 100}}},
		{target: "shards-4", rounds: []result{{rate: 310}, {rate: 330}, {rate: 340}}},
	}}}}
	var out bytes.Buffer
	b.printBars(&out)
	if want := "| **3.30** (3.10–3.40) | ≥ 3.2 | met |"; !strings.Contains(out.String(), want) {
		t.Errorf("no %q in\n%s", want, out.String())
	}
	slower := bar{measure: p50, most: true, limit: 2}
	for ratio, verdict := range map[float64]string{1.9: "met", 2.1: "missed"} {
		if got := slower.cells([]float64{ratio}); got[4] != verdict {
			t.Errorf("%v at most 2 is said to be %s", ratio, got[4])
		}
	}
}

func TestAShardStaysWithinItsShareOfACPU(t *testing.T) {
	q, err := newQuota("sidebyside-test", 0.2)
	if err != nil {
		t.Skip(err)
	}
	busy, err := start(t.TempDir(), "busy", "/bin/sh", "-c", "while :; do :; done")
	if err != nil {
		t.Fatal(err)
	}
	err = q.add(busy.cmd.Process.Pid)
	began := time.Now()
	before, _ := cpu(busy.cmd.Process.Pid)
	time.Sleep(time.Second)
	after, _ := cpu(busy.cmd.Process.Pid)
	took := time.Since(began)
	busy.stop()
	if err := errors.Join(err, q.remove()); err != nil {
		t.Fatal(err)
	}
	// A machine that is slow gives less; the limit is what may not be passed.
	if used := after - before; used > took*4/10 {
		t.Errorf("it used %v of %v", used, took)
	}
}

// The log is that of etcd, and etcd is built with it.
func TestASlowerDiskIsOneThatEtcdsLogWaitsFor(t *testing.T) {
	if testing.Short() {
		t.Skip("builds a part of etcd")
	}
	ctx, cancel := context.WithTimeout(t.Context(), 5*time.Minute)
	defer cancel()
	dir := t.TempDir()
	flags, err := slowFlags(ctx, dir, 20*time.Millisecond)
	if err != nil {
		t.Fatal(err)
	}
	text, err := goTool(ctx, slices.Concat([]string{"list"}, flags, []string{"-deps", "-f", "{{.Dir}}", etcdPackage})...)
	if err != nil {
		t.Fatal(err)
	}
	dirs := strings.Fields(text)
	for _, want := range []string{filepath.Dir(filepath.Join(dir, "slowdisk", syncFile)), "/storage/wal"} {
		if !slices.ContainsFunc(dirs, func(d string) bool { return strings.HasSuffix(d, want) }) {
			t.Errorf("etcd is not built of %s", want)
		}
	}
	program := filepath.Join(dir, "wal")
	if err := build(ctx, program, "./testdata/wal", flags...); err != nil {
		t.Fatal(err)
	}
	out, err := exec.CommandContext(ctx, program, filepath.Join(dir, "log")).CombinedOutput()
	if took, err2 := time.ParseDuration(strings.TrimSpace(string(out))); err != nil || err2 != nil || took < 20*time.Millisecond {
		t.Errorf("an append took %s, %v", out, err)
	}
}
