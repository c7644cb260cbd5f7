package integration

import (
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/sharder/sharder/integration/harness"
)

// soon bounds what happens at once on an idle machine.
const soon = time.Minute

// etcdctl runs a command that must succeed and gives what it printed, without the
// last line break.
func etcdctl(t *testing.T, s *harness.Sharder, args ...string) string {
	t.Helper()
	res := harness.Etcdctl(t, s.Endpoint, args...)
	if res.Code != 0 {
		t.Fatalf("etcdctl %q: exit %d\n%s%s", args, res.Code, res.Stdout, res.Stderr)
	}
	return strings.TrimSuffix(res.Stdout, "\n")
}

// expectCtl runs a command and compares what it prints.
func expectCtl(t *testing.T, s *harness.Sharder, want string, args ...string) {
	t.Helper()
	if got := etcdctl(t, s, args...); got != want {
		t.Fatalf("etcdctl %q printed\n%s\nwant\n%s", args, got, want)
	}
}

// shardOfEach puts one key on each of the three shards.
func shardOfEach(t *testing.T, s *harness.Sharder) {
	t.Helper()
	expectCtl(t, s, "OK", "put", "a", "1")
	expectCtl(t, s, "OK", "put", "j", "2")
	expectCtl(t, s, "OK", "put", "z", "3")
}

func TestThreeShardsAreOneEtcdToEtcdctl(t *testing.T) {
	t.Parallel()
	s := harness.Start(t, harness.Three())
	// etcdctl 3.7 has no --from-key for watch; the empty prefix is the same range.
	watch := harness.Follow(t, s.Endpoint, "watch", "", "--prefix")
	watchReady(t, s, watch)
	shardOfEach(t, s)
	expectCtl(t, s, "a\n1\nj\n2\nz\n3", "get", "", "--from-key")
	expectCtl(t, s, "z\n3\nj\n2", "get", "", "--from-key", "--order=DESCEND", "--limit=2")
	expectCtl(t, s, "a\n\nj\n\nz\n", "get", "", "--from-key", "--keys-only")
	expectCtl(t, s, "3", "del", "", "--from-key")
	expectCtl(t, s, "", "get", "", "--from-key")
	events := []string{"PUT\na\n1\n", "PUT\nj\n2\n", "PUT\nz\n3\n", "DELETE\na\n", "DELETE\nj\n", "DELETE\nz\n"}
	text := watch.WaitFor(soon, "all events", func(out string) bool { // an event is printed in pieces
		return !slices.ContainsFunc(events, func(want string) bool { return !strings.Contains(out, want) })
	})
	for _, want := range events {
		if strings.Count(text, want) != 1 {
			t.Errorf("%q came %d times in\n%s", want, strings.Count(text, want), text)
		}
	}
}

// watchReady waits until a watch over everything delivers. etcdctl does not say when
// its watch stands, so a key is put and deleted until it is seen.
func watchReady(t *testing.T, s *harness.Sharder, watch *harness.Process) {
	t.Helper()
	deadline := time.Now().Add(soon)
	for !strings.Contains(watch.Stdout.String(), "DELETE\nprobe\n") {
		if time.Now().After(deadline) {
			t.Fatalf("the watch delivers nothing; stdout:\n%s\nstderr:\n%s", watch.Stdout, watch.Stderr)
		}
		etcdctl(t, s, "put", "probe", "x")
		etcdctl(t, s, "del", "probe")
	}
}

var leaseID = regexp.MustCompile(`lease ([0-9a-f]+) `)

// grant makes a lease with etcdctl and gives its id.
func grant(t *testing.T, s *harness.Sharder, ttl string) string {
	t.Helper()
	m := leaseID.FindStringSubmatch(etcdctl(t, s, "lease", "grant", ttl))
	if m == nil {
		t.Fatal("no id in what lease grant printed")
	}
	return m[1]
}

func TestALeaseHoldsKeysOfEveryShardAsEtcdctlShowsIt(t *testing.T) {
	t.Parallel()
	s := harness.Start(t, harness.Three())
	id := grant(t, s, "15")
	for _, key := range []string{"z", "a", "j"} {
		expectCtl(t, s, "OK", "put", key, "1", "--lease="+id)
	}
	alive := harness.Follow(t, s.Endpoint, "lease", "keep-alive", id)
	alive.WaitText(soon, "lease "+id+" keepalived with TTL(15)")
	once := etcdctl(t, s, "lease", "keep-alive", "--once", id)
	if once != "lease "+id+" keepalived with TTL(15)" {
		t.Errorf("keep-alive --once printed %q", once)
	}
	ttl := etcdctl(t, s, "lease", "timetolive", id, "--keys")
	keys := regexp.MustCompile(`^lease ` + id + ` granted with TTL\(15s\), remaining\((?:[5-9]|1[0-5])s\), attached keys\(\[(.*)\]\)$`).FindStringSubmatch(ttl)
	if keys == nil {
		t.Fatalf("timetolive printed %q", ttl)
	}
	names := strings.Fields(keys[1])
	slices.Sort(names)
	if !slices.Equal(names, []string{"a", "j", "z"}) {
		t.Errorf("keys %q", names)
	}
	if list := etcdctl(t, s, "lease", "list"); list != "found 1 leases\n"+id {
		t.Errorf("list printed %q", list)
	}
	expectCtl(t, s, "lease "+id+" revoked", "lease", "revoke", id)
	expectCtl(t, s, "", "get", "", "--from-key")
	if code := alive.Wait(soon); code != 0 {
		t.Errorf("keep-alive ended with %d", code)
	}
	if out := alive.Stdout.String(); !strings.Contains(out, "lease "+id+" expired or revoked.") {
		t.Errorf("keep-alive ended with %q", out)
	}
	expectCtl(t, s, "lease "+id+" already expired", "lease", "timetolive", id)
}

func TestAKeepAliveKeepsALeaseAndItsEndEndsIt(t *testing.T) {
	t.Parallel()
	s := harness.Start(t, harness.Three())
	id := grant(t, s, "6")
	start := time.Now()
	alive := harness.Follow(t, s.Endpoint, "lease", "keep-alive", id)
	alive.WaitText(soon, "keepalived")
	for _, key := range []string{"a", "j", "z"} {
		expectCtl(t, s, "OK", "put", key, "1", "--lease="+id)
	}
	alive.WaitFor(soon, "keep-alives for longer than the TTL", func(string) bool { return time.Since(start) > 8*time.Second })
	expectCtl(t, s, "a\n1\nj\n1\nz\n1", "get", "", "--from-key")
	alive.Kill()
	gone := time.Now()
	for etcdctl(t, s, "get", "", "--from-key") != "" {
		if time.Since(gone) > soon {
			t.Fatal("keys outlive their lease")
		}
	}
}

func TestEtcdctlTxnChecksAndReports(t *testing.T) {
	t.Parallel()
	s := harness.Start(t, harness.Three())
	shardOfEach(t, s)
	res := harness.EtcdctlInput(t, s.Endpoint, "value(\"a\") = \"1\"\n\nput a new\nget b\n\nput b old\n\n", "txn")
	if res.Code != 0 || res.Stdout != "SUCCESS\n\nOK\n\n" {
		t.Fatalf("%+v", res)
	}
	res = harness.EtcdctlInput(t, s.Endpoint, "value(\"a\") = \"new\"\n\nput z new\n\n\n", "txn")
	if res.Code == 0 || !strings.Contains(res.Stderr, "sharder: ") || !strings.Contains(res.Stderr, "one") || !strings.Contains(res.Stderr, "three") {
		t.Fatalf("a Txn over two shards: %+v", res)
	}
	expectCtl(t, s, "z\n3", "get", "z")
}

func TestARestartKeepsTheData(t *testing.T) {
	t.Parallel()
	s := harness.Start(t, harness.Three())
	shardOfEach(t, s)
	s.Stop()
	s.Again()
	expectCtl(t, s, "a\n1\nj\n2\nz\n3", "get", "", "--from-key")
	s.Kill()
	s.Again()
	expectCtl(t, s, "a\n1\nj\n2\nz\n3", "get", "", "--from-key")
}

func TestSharderSaysWhatItServes(t *testing.T) {
	t.Parallel()
	s := harness.Start(t, harness.Three())
	text := ""
	for _, want := range []string{s.Endpoint, "one", "two", "three"} {
		text = s.Process().WaitText(soon, want)
	}
	if lines := strings.Count(text, "\n"); lines > 20 {
		t.Errorf("%d lines are more than a few:\n%s", lines, text)
	}
}
