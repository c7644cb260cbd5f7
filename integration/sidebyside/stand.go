package main

import (
	"context"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"

	"github.com/sourcegraph/conc"

	"github.com/sharder/sharder/integration/ports"
)

// stand is everything that runs. Whoever made it stops it, once; then its processes
// and its directory are gone.
type stand struct {
	dir     string
	bin     binaries
	fsync   bool       // the etcds wait for the disk
	etcds   []*process // started before, stopped behind the proxies
	proxies []*process
	quotas  []*quota
	targets []*target // the first is what the others are compared with
}

// layout is what stands: it starts the processes of a stand and makes the targets.
type layout func(s *stand) error

// newStand builds, starts and seeds. Nothing is left of it if it fails.
func newStand(ctx context.Context, p plan, all layout, progress io.Writer) (*stand, error) {
	dir, err := os.MkdirTemp(p.dir, "sidebyside-")
	if err != nil {
		return nil, err
	}
	s := &stand{dir: dir, fsync: p.fsync}
	if err := s.setUp(ctx, p, all, progress); err != nil {
		s.stop()
		return nil, err
	}
	return s, nil
}

// setUp returns when every target serves and holds what the cells read.
func (s *stand) setUp(ctx context.Context, p plan, all layout, progress io.Writer) (err error) {
	if s.bin = p.built; s.bin == (binaries{}) {
		fmt.Fprintln(progress, "building etcd and sharder")
		if s.bin, err = buildBinaries(ctx, s.dir, p.slower); err != nil {
			return err
		}
	}
	// All processes find the others when they are there, so nothing waits between them.
	if err := all(s); err != nil {
		return err
	}
	fmt.Fprintf(progress, "started %d etcds and %d proxies\n", len(s.etcds), len(s.proxies))
	for _, t := range s.targets {
		if err := t.dial(); err != nil {
			return err
		}
		if err := t.ready(ctx); err != nil {
			return err
		}
	}
	for _, t := range s.targets {
		if err := seed(ctx, t, p.clients); err != nil {
			return fmt.Errorf("seed %s: %w", t.name, err)
		}
	}
	return nil
}

// member is an etcd that runs, a cluster of its own.
type member struct {
	process *process
	addr    string
}

// startEtcds starts n etcds.
func (s *stand) startEtcds(n int) ([]member, error) {
	addrs, err := ports.Free(2 * n)
	if err != nil {
		return nil, err
	}
	var members []member
	for i := range n {
		p, err := s.startEtcd(addrs[i], addrs[n+i])
		if err != nil {
			return nil, err
		}
		members = append(members, member{p, addrs[i]})
	}
	return members, nil
}

func (s *stand) startEtcd(client, peer string) (*process, error) {
	name := fmt.Sprintf("etcd-%d", len(s.etcds))
	args := []string{
		"--name", name, "--data-dir", filepath.Join(s.dir, name),
		"--listen-client-urls", "http://" + client, "--advertise-client-urls", "http://" + client,
		"--listen-peer-urls", "http://" + peer, "--initial-advertise-peer-urls", "http://" + peer,
		"--initial-cluster", name + "=http://" + peer, "--log-level", "warn",
		// What a shard has to allow above what clients may send.
		"--max-txn-ops", "256", "--max-request-bytes", "2097152",
	}
	if !s.fsync {
		args = append(args, "--unsafe-no-fsync")
	}
	p, err := start(s.dir, name, s.bin.etcd, args...)
	if err == nil {
		s.etcds = append(s.etcds, p)
	}
	return p, err
}

// sharder writes a configuration, starts the sharder at path on it and makes it a target. With an
// order cluster it is shape C, without one A or B.
func (s *stand) sharder(name, path string, shards []member, order *member, routes string) error {
	addrs, err := ports.Free(1)
	if err != nil {
		return err
	}
	text := fmt.Sprintf("listen = [%q]\n", addrs[0])
	if order != nil {
		text += fmt.Sprintf("\n[order]\nendpoints = [%q]\n", order.addr)
	}
	for i, shard := range shards {
		text += fmt.Sprintf("\n[shards.%s]\nendpoints = [%q]\n", shardNames[i], shard.addr)
	}
	file := filepath.Join(s.dir, name+".toml")
	if err := os.WriteFile(file, []byte(text+"\n"+routes), 0o600); err != nil {
		return err
	}
	t, err := s.front(name, addrs[0], path, "--conf", file)
	if err != nil {
		return err
	}
	t.shards, t.order = shards, order
	return nil
}

// front starts a proxy and makes it a target.
func (s *stand) front(name, listen, path string, args ...string) (*target, error) {
	p, err := start(s.dir, name, path, args...)
	if err != nil {
		return nil, err
	}
	s.proxies = append(s.proxies, p)
	t := &target{name: name, addr: listen, proxy: p}
	s.targets = append(s.targets, t)
	return t, nil
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
	for _, q := range s.quotas {
		_ = q.remove() // its processes have ended
	}
	_ = os.RemoveAll(s.dir)
}
