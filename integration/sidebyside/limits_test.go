package main

import (
	"bytes"
	"context"
	"errors"
	"io"
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
	before, _ := cpu(busy.cmd.Process.Pid)
	time.Sleep(time.Second)
	after, _ := cpu(busy.cmd.Process.Pid)
	busy.stop()
	if err := errors.Join(err, q.remove()); err != nil {
		t.Fatal(err)
	}
	// A machine that is slow gives less; the limit is what may not be passed.
	if used := after - before; used > 400*time.Millisecond {
		t.Errorf("it used %v of a second", used)
	}
}

func TestASlowerDiskIsOneThatEtcdWaitsFor(t *testing.T) {
	if testing.Short() {
		t.Skip("builds and starts an etcd")
	}
	ctx, cancel := context.WithTimeout(t.Context(), 3*time.Minute)
	defer cancel()
	p := small
	p.fsync, p.slower = true, 20*time.Millisecond
	s, err := newStand(ctx, p, func(s *stand) error {
		etcds, err := s.startEtcds(1)
		if err == nil {
			s.targets = []*target{{name: "etcd", addr: etcds[0].addr, shards: etcds}}
		}
		return err
	}, io.Discard)
	if err != nil {
		t.Fatal(err)
	}
	defer s.stop()
	r, err := runLoop(ctx, s.targets[0], p, 1, put(s.targets[0], 1))
	if err != nil {
		t.Fatal(err)
	}
	if r[p50] < 20_000 {
		t.Errorf("a put took %v µs", r[p50])
	}
}
