package integration

import (
	"path/filepath"
	"strings"
	"testing"

	"github.com/sharder/sharder/integration/etcdtest"
	"github.com/sharder/sharder/integration/harness"
	"github.com/sharder/sharder/integration/script"
)

// scriptsAtOnce bounds how many scripts run side by side: each has up to five etcds
// of its own.
const scriptsAtOnce = 2

var scriptSlots = make(chan struct{}, scriptsAtOnce)

// TestScriptsSayOnSharderWhatTheySayOnEtcd runs every file of testdata on a plain
// etcd, on sharder with one shard, with three, and with three under one order.
func TestScriptsSayOnSharderWhatTheySayOnEtcd(t *testing.T) {
	for _, file := range scriptFiles(t) {
		t.Run(strings.TrimSuffix(filepath.Base(file), ".txt"), func(t *testing.T) {
			t.Parallel()
			scriptSlots <- struct{}{}
			defer func() { <-scriptSlots }()
			runScript(t, file)
		})
	}
}

// scriptFiles are all of them.
func scriptFiles(t *testing.T) []string {
	t.Helper()
	files, err := filepath.Glob("testdata/*.txt")
	if err != nil || len(files) == 0 {
		t.Fatalf("no scripts: %v", err)
	}
	return files
}

// runScript runs one file on all servers and compares.
func runScript(t *testing.T, file string) {
	s, err := script.ParseFile(file)
	if err != nil {
		t.Fatal(err)
	}
	etcd := execute(t, s, plainEtcd(t))
	compareWith(t, s, etcd, oneShard(t))
	if s.OneShard {
		return
	}
	if !s.Order {
		compareWith(t, s, etcd, manyShards(t))
	}
	compareWith(t, s, etcd, orderedShards(t))
}

// TestScriptsSayInANamespaceWhatTheySayOnEtcd runs every file on sharders that give clients a
// namespace: of one shard, the last keys there are; of three, with one order and without, keys
// in the middle.
func TestScriptsSayInANamespaceWhatTheySayOnEtcd(t *testing.T) {
	for _, file := range scriptFiles(t) {
		t.Run(strings.TrimSuffix(filepath.Base(file), ".txt"), func(t *testing.T) {
			t.Parallel()
			scriptSlots <- struct{}{}
			defer func() { <-scriptSlots }()
			runScriptInNamespace(t, file)
		})
	}
}

func runScriptInNamespace(t *testing.T, file string) {
	s, err := script.ParseFile(file)
	if err != nil {
		t.Fatal(err)
	}
	s = s.InNamespace()
	etcd := execute(t, s, plainEtcd(t))
	for _, h := range houses(t, "tenant/") {
		switch {
		case h.shape != script.OneShard && s.OneShard, h.shape == script.ManyShards && s.Order:
		case h.shape == script.OneShard:
			compareWith(t, s, etcd, h.server(t, "hex:ffff"))
		default:
			compareWith(t, s, etcd, h.server(t, "tenant/"))
		}
	}
}

// compareWith runs a script on a server too, and compares.
func compareWith(t *testing.T, s *script.Script, etcd *script.Run, server script.Server) {
	t.Helper()
	run := execute(t, s, server)
	if etcd == nil || run == nil {
		return
	}
	for _, wrong := range script.Compare(s, etcd, run, server.Shape) {
		t.Error(wrong)
	}
}

// execute runs a script on one server; what is wrong with it alone is reported.
func execute(t *testing.T, s *script.Script, server script.Server) *script.Run {
	t.Helper()
	run, err := script.Execute(s, server)
	if err != nil {
		t.Errorf("on %s: %v", server.Name, err)
		return nil
	}
	for _, wrong := range run.Wrong {
		t.Error(wrong)
	}
	return run
}

// plainEtcd is the truth.
func plainEtcd(t *testing.T) script.Server {
	e := etcdtest.Start(t)
	return script.Server{Name: "etcd", Shape: script.PlainEtcd, Endpoint: e.Endpoint, Restart: func(bool) { e.Restart() }}
}

// oneShard is sharder in front of one embedded etcd.
func oneShard(t *testing.T) script.Server {
	return sharderServer(harness.Start(t, harness.Single()), "sharder, one shard", script.OneShard)
}

// manyShards is sharder in front of three embedded etcds.
func manyShards(t *testing.T) script.Server {
	return sharderServer(harness.Start(t, harness.Three()), "sharder, three shards", script.ManyShards)
}

// orderedShards is sharder in front of three embedded etcds and one that orders them.
func orderedShards(t *testing.T) script.Server {
	return sharderServer(harness.Start(t, harness.Three().Ordered()), "sharder, three shards and order", script.Ordered)
}

// sharderServer makes a sharder process a script's server.
func sharderServer(s *harness.Sharder, name string, shape script.Shape) script.Server {
	return script.Server{Name: name, Shape: shape, Endpoint: s.Endpoint, Restart: func(kill bool) {
		if kill {
			s.Kill()
		} else {
			s.Stop()
		}
		s.Again()
	}}
}
