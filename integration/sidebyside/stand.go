package main

import (
	"context"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"

	"github.com/sourcegraph/conc"
)

// stand is everything that runs. Whoever made it stops it, once; then its processes
// and its directory are gone.
type stand struct {
	dir     string
	bin     binaries
	etcds   []*process // started before, stopped behind the proxies
	proxies []*process
	targets []*target // etcd itself comes first: the others are compared with it
}

// newStand builds, starts and seeds. Nothing is left of it if it fails.
func newStand(ctx context.Context, clients int, progress io.Writer) (*stand, error) {
	dir, err := os.MkdirTemp("", "sidebyside-")
	if err != nil {
		return nil, err
	}
	s := &stand{dir: dir}
	if err := s.setUp(ctx, clients, progress); err != nil {
		s.stop()
		return nil, err
	}
	return s, nil
}

// setUp returns when every target serves and holds what the cells read.
func (s *stand) setUp(ctx context.Context, clients int, progress io.Writer) (err error) {
	fmt.Fprintln(progress, "building etcd and sharder")
	if s.bin, err = buildBinaries(ctx, s.dir); err != nil {
		return err
	}
	fmt.Fprintln(progress, "starting 4 etcds, grpc-proxy and 2 sharders")
	if err := s.startAll(); err != nil {
		return err
	}
	for _, t := range s.targets {
		if err := t.dial(); err != nil {
			return err
		}
		if err := t.ready(ctx); err != nil {
			return err
		}
	}
	for _, t := range s.targets {
		if err := seed(ctx, t, clients); err != nil {
			return fmt.Errorf("seed %s: %w", t.name, err)
		}
	}
	return nil
}

// startAll starts the processes. All of them find the others when they are there, so
// nothing waits here.
func (s *stand) startAll() error {
	addrs, err := freeAddrs(11)
	if err != nil {
		return err
	}
	clients, peers, front := addrs[0:4], addrs[4:8], addrs[8:11]
	for i := range clients {
		if err := s.startEtcd(i, clients[i], peers[i]); err != nil {
			return err
		}
	}
	s.targets = append(s.targets, &target{name: "etcd", addr: clients[0]})
	if err := s.front("grpc-proxy", front[0], s.bin.etcd, "grpc-proxy", "start",
		"--endpoints", clients[0], "--listen-addr", front[0], "--advertise-client-url", front[0],
		"--data-dir", filepath.Join(s.dir, "grpc-proxy")); err != nil {
		return err
	}
	if err := s.sharder("sharder-1", front[1], clients[:1], []string{"one"}, "[routes]\n\"\" = \"one\"\n"); err != nil {
		return err
	}
	if err := s.sharder("sharder-3", front[2], clients[1:], []string{"one", "two", "three"}, routes); err != nil {
		return err
	}
	s.targets[1].ownPace = true
	for _, t := range s.targets[:3] {
		t.etcds, t.stats = s.etcds[:1], clients[:1]
	}
	s.targets[3].etcds, s.targets[3].stats = s.etcds[1:], clients[1:]
	return nil
}

// startEtcd starts etcd i, a cluster of its own.
func (s *stand) startEtcd(i int, client, peer string) error {
	name := fmt.Sprintf("etcd-%d", i)
	p, err := start(s.dir, name, s.bin.etcd, "--name", name, "--data-dir", filepath.Join(s.dir, name),
		"--listen-client-urls", "http://"+client, "--advertise-client-urls", "http://"+client,
		"--listen-peer-urls", "http://"+peer, "--initial-advertise-peer-urls", "http://"+peer,
		"--initial-cluster", name+"=http://"+peer, "--log-level", "warn", "--unsafe-no-fsync")
	if err == nil {
		s.etcds = append(s.etcds, p)
	}
	return err
}

// sharder writes a configuration and starts sharder on it.
func (s *stand) sharder(name, listen string, endpoints, shards []string, routes string) error {
	text := fmt.Sprintf("listen = [%q]\n", listen)
	for i, shard := range shards {
		text += fmt.Sprintf("\n[shards.%s]\nendpoints = [%q]\n", shard, endpoints[i])
	}
	file := filepath.Join(s.dir, name+".toml")
	if err := os.WriteFile(file, []byte(text+"\n"+routes), 0o600); err != nil {
		return err
	}
	return s.front(name, listen, s.bin.sharder, "--conf", file)
}

// front starts a proxy and makes it a target.
func (s *stand) front(name, listen, path string, args ...string) error {
	p, err := start(s.dir, name, path, args...)
	if err != nil {
		return err
	}
	s.proxies = append(s.proxies, p)
	s.targets = append(s.targets, &target{name: name, addr: listen, proxy: p})
	return nil
}

// stop ends everything, the proxies before what they stand in front of.
func (s *stand) stop() {
	for _, t := range s.targets {
		t.close()
	}
	for tier := range slices.Values([][]*process{s.proxies, s.etcds}) {
		var wg conc.WaitGroup
		for _, p := range tier {
			wg.Go(p.stop)
		}
		wg.Wait()
	}
	_ = os.RemoveAll(s.dir)
}
