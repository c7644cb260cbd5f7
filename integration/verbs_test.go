package integration

import (
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/sharder/sharder/integration/etcdproc"
	"github.com/sharder/sharder/integration/harness"
	"github.com/sharder/sharder/integration/ports"
)

// verb is one command of etcdctl, and what may differ in what it prints between two etcds that
// are told the same.
type verb struct {
	args  string // split at spaces; DIR is a directory of the side's own, LEASE and MEMBER what an earlier command named
	input string
	loose bool // numbers differ: sizes, terms, times
}

// verbs has every verb of etcdctl, and every one below it.
var verbs = []verb{
	{args: "version", loose: true}, {args: "options"}, {args: "completion bash"},
	{args: "put a 1"}, {args: "put a 2 --prev-kv"}, {args: "put b 3"}, {args: "put none --ignore-value"},
	{args: "get a"}, {args: "get a --rev 2"}, {args: "get a b --print-value-only"}, {args: "get --from-key a -w fields", loose: true},
	{args: "get --prefix a --keys-only --consistency=s"}, {args: "get a --rev 99"}, {args: "get --count-only --prefix a --write-out=fields", loose: true},
	{args: "del b --prev-kv"}, {args: "del nothing"},
	{args: "txn", input: "mod(\"a\") > \"0\"\n\nput c 4\nget a\n\nget b\n\n"}, {args: "txn", input: "nonsense\n\n\n\n"},
	{args: "lease grant 100"}, {args: "put leased 1 --lease=LEASE"}, {args: "lease timetolive LEASE --keys", loose: true}, {args: "lease list"},
	{args: "lease keep-alive --once LEASE"}, {args: "lease revoke LEASE"}, {args: "lease revoke LEASE"}, {args: "lease timetolive LEASE"}, {args: "get leased"},
	{args: "lock l echo locked", loose: true}, {args: "elect e"},
	{args: "compaction 3"}, {args: "get a --rev 2"}, {args: "compaction 3"}, {args: "compaction 999"},
	{args: "alarm list"}, {args: "alarm disarm"}, {args: "defrag", loose: true},
	{args: "endpoint health", loose: true}, {args: "endpoint status -w fields", loose: true}, {args: "endpoint hashkv", loose: true},
	{args: "member list"}, {args: "member list --consistency=s -w fields", loose: true},
	{args: "member add second --learner --peer-urls=http://127.0.0.1:1", loose: true}, {args: "member promote MEMBER"},
	{args: "member update MEMBER --peer-urls=http://127.0.0.1:2"}, {args: "member remove MEMBER"}, {args: "member remove 1234"},
	{args: "move-leader 1234"}, {args: "snapshot save DIR/snap", loose: true}, {args: "downgrade validate 3.6"}, {args: "downgrade cancel"}, {args: "downgrade enable 3.1"},
	{args: "role add r"}, {args: "role grant-permission r readwrite a z"}, {args: "role get r"}, {args: "role list"}, {args: "role revoke-permission r a z"},
	{args: "role grant-permission r read c"}, {args: "role add r"},
	{args: "user add root:secret"}, {args: "user grant-role root root"}, {args: "user add u:pw"}, {args: "user grant-role u r"}, {args: "user get u"}, {args: "user list"},
	{args: "user passwd u --interactive=false", input: "pw2\n"}, {args: "auth status", loose: true}, {args: "auth enable"}, {args: "get c"}, {args: "get c --user u:pw2"}, {args: "get a --user u:pw2"},
	{args: "get c --user u:wrong"}, {args: "put c 5 --user u:pw2"}, {args: "endpoint status --user root:secret -w fields", loose: true}, {args: "user revoke-role u r --user root:secret"},
	{args: "get c --user u:pw2"}, {args: "user delete u --user root:secret"}, {args: "role delete r --user root:secret"}, {args: "auth disable --user root:secret"}, {args: "get c"},
}

// elsewhere are the verbs that another test or nobody runs, and why.
var elsewhere = map[string]string{
	"watch":       "TestWatchWithEtcdctlThroughAProxy: it doesn't end by itself",
	"make-mirror": "TestWatchWithEtcdctlThroughAProxy: it doesn't end by itself",
	"check":       "it is a load of a minute",
	"help":        "it asks nobody",
}

// side is one of the two that are asked.
type side struct {
	t             *testing.T
	endpoint, dir string
	lease, member string
}

// variable is what differs from one etcd to another: ids, addresses, versions of programs, directories.
var variable = []struct {
	*regexp.Regexp
	to string
}{
	{regexp.MustCompile(`127\.0\.0\.1:\d{4,5}`), "ADDR"},
	{regexp.MustCompile(` *\b[0-9a-f]{12,16}\b`), " ID"}, // padded to sixteen
	{regexp.MustCompile(`"?(ClusterID|MemberID|cluster_id|member_id|Leader|Hash)"? ?: ?\d+`), "$1: ID"},
	{regexp.MustCompile(`\{"level".*\n`), ""},
	{regexp.MustCompile(`ETCD_INITIAL_CLUSTER=.*`), "in the order of their ids"},
}

// number is what differs where loose is set.
var number = regexp.MustCompile(`[0-9]+(\.[0-9]+)? ?(ms|µs|s|kB|MB|GB|%)?`)

var (
	grantedLease = regexp.MustCompile(`lease ([0-9a-f]+) granted`)
	addedMember  = regexp.MustCompile(`Member +([0-9a-f]+) added`)
)

// run does what a verb says, and gives what can be compared.
func (s *side) run(v verb) (out string, code int) {
	words := strings.Fields(strings.NewReplacer("DIR", s.dir, "LEASE", s.lease, "MEMBER", s.member).Replace(v.args))
	if strings.HasPrefix(v.args, "lock") {
		words = []string{"lock", "l", "echo", "locked"}
	}
	if strings.HasPrefix(v.args, "elect") {
		p := harness.Follow(s.t, s.endpoint, "elect", "e", "me")
		p.WaitText(soon, "me")
		p.Signal(syscall.SIGINT)
		p.Wait(soon)
		return "", 0
	}
	res := harness.EtcdctlInput(s.t, s.endpoint, v.input, words...)
	text := res.Stdout + "stderr: " + res.Stderr
	if m := grantedLease.FindStringSubmatch(text); m != nil {
		s.lease = m[1]
	}
	if m := addedMember.FindStringSubmatch(text); m != nil {
		s.member = strings.TrimSpace(m[1])
	}
	text = strings.ReplaceAll(text, s.dir, "DIR")
	for _, x := range variable {
		text = x.ReplaceAllString(text, x.to)
	}
	if v.loose {
		text = number.ReplaceAllString(text, "N")
	}
	return text, res.Code
}

// grpcProxy starts sharder in the place of etcd grpc-proxy and gives its address.
func grpcProxy(t *testing.T, flags ...string) string {
	t.Helper()
	addr := ports.Of(t)
	p := harness.Run(t, append([]string{harness.Binary(t, harness.SharderPackage), "grpc-proxy", "start", "--listen-addr", addr}, flags...)...)
	for deadline := time.Now().Add(soon); !strings.Contains(p.Stderr.String(), "started gRPC proxy"); time.Sleep(20 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("not ready:\n%s%s", p.Stdout, p.Stderr)
		}
	}
	return addr
}

// Every verb of stock etcdctl, through sharder in the place of etcd grpc-proxy as directly.
func TestEtcdctlDoesThroughAProxyWhatItDoesDirectly(t *testing.T) {
	t.Parallel()
	direct, behind := settledEtcd(t), settledEtcd(t)
	sides := []*side{
		{t: t, endpoint: strings.TrimPrefix(direct.Endpoint(0), "http://"), dir: t.TempDir()},
		{t: t, endpoint: grpcProxy(t, "--endpoints", behind.Endpoint(0), "--advertise-client-url", ""), dir: t.TempDir()},
	}
	for _, v := range verbs {
		want, wantCode := sides[0].run(v)
		have, haveCode := sides[1].run(v)
		if have != want || haveCode != wantCode {
			t.Errorf("etcdctl %s\ndirectly, exit %d:\n%s\nthrough sharder, exit %d:\n%s", v.args, wantCode, want, haveCode, have)
		}
	}
	for _, s := range sides {
		if i, err := os.Stat(filepath.Join(s.dir, "snap")); err != nil || i.Size() < 10_000 {
			t.Errorf("snapshot of %s: %v", s.endpoint, err)
		}
	}
}

// commands are those that etcdctl itself lists.
var commands = regexp.MustCompile(`(?m)^  ([a-z-]+) +[A-Z]`)

func TestNoVerbOfEtcdctlIsForgotten(t *testing.T) {
	t.Parallel()
	help := harness.Command(t, harness.Binary(t, harness.EtcdctlPackage), "help").Stdout
	found := commands.FindAllStringSubmatch(help, -1)
	if len(found) < 20 {
		t.Fatalf("%d commands found in\n%s", len(found), help)
	}
	for _, m := range found {
		name := m[1]
		if elsewhere[name] == "" && !slices.ContainsFunc(verbs, func(v verb) bool { return strings.Fields(v.args)[0] == name }) {
			t.Errorf("etcdctl %s is not tried", name)
		}
	}
}

func TestWatchWithEtcdctlThroughAProxy(t *testing.T) {
	t.Parallel()
	source, target := etcdproc.Start(t, 1), etcdproc.Start(t, 1)
	proxy := grpcProxy(t, "--endpoints", source.Endpoint(0))
	for key, value := range map[string]string{"a": "1", "b": "2"} {
		if res := harness.Etcdctl(t, proxy, "put", key, value); res.Code != 0 {
			t.Fatal(res)
		}
	}
	watch := harness.Follow(t, proxy, "watch", "", "--prefix", "--rev", "1")
	watch.WaitText(soon, "PUT\na\n1\n")
	harness.Follow(t, proxy, "make-mirror", strings.TrimPrefix(target.Endpoint(0), "http://"))
	harness.Etcdctl(t, proxy, "put", "c", "3")
	watch.WaitText(soon, "PUT\nc\n3\n")
	mirrored := func() string {
		return harness.Etcdctl(t, target.Endpoint(0), "get", "", "--from-key").Stdout
	}
	for deadline := time.Now().Add(soon); mirrored() != "a\n1\nb\n2\nc\n3\n"; time.Sleep(100 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("the mirror has\n%s", mirrored())
		}
	}
}
