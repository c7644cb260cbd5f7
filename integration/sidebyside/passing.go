package main

import (
	"bytes"
	"context"
	"fmt"
	"net"
	"os"
	"strconv"
	"strings"
	"time"

	"github.com/sharder/sharder/integration/ports"
)

// passingOn is what it costs to pass connections on byte by byte: etcd, and in front of it
// etcd's own gateway, sharder's, and other builds of sharder.
func passingOn(builds []namedBuild) layout {
	return func(s *stand) error {
		etcds, err := s.startEtcds(1)
		if err != nil {
			return err
		}
		s.targets = append(s.targets, &target{name: "etcd", addr: etcds[0].addr, shards: etcds})
		all := []namedBuild{{"etcd-gateway", s.bin.etcd}, {"sharder-gateway", s.bin.sharder}}
		for _, b := range builds {
			all = append(all, namedBuild{b.name + "-gateway", b.path})
		}
		addrs, err := ports.Free(len(all))
		if err != nil {
			return err
		}
		for i, g := range all {
			t, err := s.front(g.name, addrs[i], g.path, "gateway", "start", "--listen-addr", addrs[i], "--endpoints", etcds[0].addr)
			if err != nil {
				return err
			}
			t.shards = etcds
		}
		return nil
	}
}

// gateways is the targets that pass connections on.
func gateways(t *target) bool { return strings.HasSuffix(t.name, "-gateway") }

// idleConnections is how many connections the memory of one is measured with.
const idleConnections = 1000

// idle opens connections that have been used once and are silent now, and measures what
// each costs what stands in front in memory, over what it had before the first round: later
// ones find the memory of the rounds before. Other workloads in the same run blur it.
func idle(ctx context.Context, t *target, _ plan) (result, error) {
	if t.resident == 0 {
		var err error
		if t.resident, err = resident(t.proxy); err != nil {
			return nil, err
		}
	}
	var dialer net.Dialer
	conns := make([]net.Conn, 0, idleConnections)
	defer func() {
		for _, c := range conns {
			_ = c.Close()
		}
	}()
	for range idleConnections {
		c, err := dialer.DialContext(ctx, "tcp", t.addr)
		if err != nil {
			return nil, err
		}
		conns = append(conns, c)
		// Enough for a gateway to have read and written in both directions.
		if _, err := c.Write([]byte("GET /version HTTP/1.1\r\nHost: e\r\n\r\n")); err != nil {
			return nil, err
		}
		_ = c.SetReadDeadline(time.Now().Add(requestBound))
		answer := make([]byte, 4096)
		if n, err := c.Read(answer); err != nil || !bytes.HasPrefix(answer[:n], []byte("HTTP/1.1 200")) {
			return nil, fmt.Errorf("asked for the version: %q, %w", answer[:n], err)
		}
	}
	sleep(ctx, 100*time.Millisecond)
	after, err := resident(t.proxy)
	if err != nil {
		return nil, err
	}
	return result{memory: float64(after-t.resident) / idleConnections}, nil
}

// resident is the memory of a process that is no file: RssAnon of /proc/PID/status
// (proc_pid_status(5)), in bytes.
func resident(p *process) (int64, error) {
	text, err := os.ReadFile("/proc/" + strconv.Itoa(p.cmd.Process.Pid) + "/status")
	if err != nil {
		return 0, err
	}
	_, rest, ok := bytes.Cut(text, []byte("\nRssAnon:"))
	fields := bytes.Fields(rest)
	if !ok || len(fields) == 0 {
		return 0, fmt.Errorf("%s: no RssAnon", p.cmd.Path)
	}
	n, err := strconv.ParseInt(string(fields[0]), 10, 64)
	return n << 10, err
}
