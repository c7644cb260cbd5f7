package main

import (
	"fmt"
	"path/filepath"

	"github.com/sharder/sharder/integration/ports"
)

// sideBySide is what a hop costs: the same requests to etcd, to grpc-proxy and to the
// three shapes of sharder.
func sideBySide(s *stand) error {
	etcds, err := s.startEtcds(8)
	if err != nil {
		return err
	}
	s.targets = append(s.targets, &target{name: "etcd", addr: etcds[0].addr, shards: etcds[:1]})
	if err := s.grpcProxy(etcds[0]); err != nil {
		return err
	}
	if err := s.sharder("sharder-1", s.bin.sharder, etcds[:1], nil, oneRoute); err != nil {
		return err
	}
	if err := s.sharder("sharder-3", s.bin.sharder, etcds[1:4], nil, routes); err != nil {
		return err
	}
	return s.sharder("sharder-C", s.bin.sharder, etcds[4:7], &etcds[7], routes)
}

// oneHop is what a hop in front of one etcd costs, and nothing else stands meanwhile:
// grpc-proxy, sharder, and other builds of sharder to compare it with.
func oneHop(builds []namedBuild) layout {
	return func(s *stand) error {
		etcds, err := s.startEtcds(1)
		if err != nil {
			return err
		}
		s.targets = append(s.targets, &target{name: "etcd", addr: etcds[0].addr, shards: etcds})
		if err := s.grpcProxy(etcds[0]); err != nil {
			return err
		}
		for _, b := range append([]namedBuild{{"sharder-1", s.bin.sharder}}, builds...) {
			if err := s.sharder(b.name, b.path, etcds, nil, oneRoute); err != nil {
				return err
			}
		}
		return nil
	}
}

// grpcProxy starts etcd's own proxy in front of an etcd.
func (s *stand) grpcProxy(of member) error {
	addrs, err := ports.Free(1)
	if err != nil {
		return err
	}
	t, err := s.front("grpc-proxy", addrs[0], s.bin.etcd, "grpc-proxy", "start",
		"--endpoints", of.addr, "--listen-addr", addrs[0], "--advertise-client-url", addrs[0],
		"--data-dir", filepath.Join(s.dir, "grpc-proxy"))
	if err != nil {
		return err
	}
	t.shards, t.ownPace = []member{of}, true
	return nil
}

// moreShards is what shards add when they are the limit: shape C with one shard and with
// four, where each shard may use no more than share of one CPU. Everything else (the
// order etcds, the sharders, the client) may use what is left, so the machine must have
// more than four such shares to spare.
func moreShards(share float64) layout {
	return func(s *stand) error {
		for _, n := range []int{1, 4} {
			routes := oneRoute
			if n > 1 {
				routes = fourRoutes
			}
			etcds, err := s.startEtcds(n + 1)
			if err != nil {
				return err
			}
			for i, shard := range etcds[:n] {
				if err := s.limit(fmt.Sprintf("%d-%d", n, i), shard.process, share); err != nil {
					return err
				}
			}
			if err := s.sharder(fmt.Sprintf("shards-%d", n), s.bin.sharder, etcds[:n], &etcds[n], routes); err != nil {
				return err
			}
		}
		return nil
	}
}

// limit gives a process a share of one CPU and no more.
func (s *stand) limit(name string, p *process, share float64) error {
	q, err := newQuota(fmt.Sprintf("%s-%s", filepath.Base(s.dir), name), share)
	if err != nil {
		return err
	}
	s.quotas = append(s.quotas, q)
	return q.add(p.cmd.Process.Pid)
}
