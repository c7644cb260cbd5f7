package main

import (
	"bytes"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/sharder/sharder/integration/etcdtest"
	"github.com/sharder/sharder/integration/ports"
	"github.com/sharder/sharder/stages"
	"github.com/sharder/sharder/stages/order"
	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	clientv3 "go.etcd.io/etcd/client/v3"
	"go.etcd.io/etcd/server/v3/embed"
)

// unanswered is what is said of a cluster that is there, and was not heard of in time.
var unanswered = regexp.MustCompile(`no answer to \d+ probes|[Dd]eadline ?[Ee]xceeded`)

// statusOf runs sharder status on a configuration, with more time than it has by itself. It has no patience
// with a member that is silent for a second: then it is asked again.
func statusOf(t *testing.T, toml string, args ...string) (code int, stdout, stderr string) {
	t.Helper()
	path := filepath.Join(t.TempDir(), "test.toml")
	if err := os.WriteFile(path, []byte(toml), 0o600); err != nil {
		t.Fatal(err)
	}
	for end := time.Now().Add(time.Minute); ; {
		var out, errs bytes.Buffer
		code = run(append([]string{"status", "--conf", path, "--timeout", "60s"}, args...), &out, &errs)
		if code != exitFailed || !unanswered.MatchString(out.String()+errs.String()) || time.Now().After(end) {
			return code, out.String(), errs.String()
		}
	}
}

// reported is what sharder status --json prints. A code of -1 is any.
func reported(t *testing.T, wantCode int, toml string, args ...string) *report {
	t.Helper()
	code, stdout, stderr := statusOf(t, toml, append(args, "--json")...)
	r := &report{}
	if err := json.Unmarshal([]byte(stdout), r); err != nil || wantCode >= 0 && code != wantCode {
		t.Fatalf("exit %d, %v: %s%s", code, err, stdout, stderr)
	}
	return r
}

// ranOnce has a deployment begin with some keys, and leaves no sharder running.
func ranOnce(t *testing.T, toml string, keys ...string) {
	t.Helper()
	r := start(t, toml)
	for _, key := range keys {
		putAt(t, r.client(), key)
	}
	if err := r.end(); err != nil {
		t.Fatal(err)
	}
}

// opened has a coordinator that is dead by now open a batch, and gives its id.
func opened(t *testing.T, e *etcdtest.Etcd, o order.Open) int64 {
	t.Helper()
	text, err := json.Marshal(o)
	if err != nil {
		t.Fatal(err)
	}
	pos, err := order.NewEtcd(e.Conn()).Append(t.Context(), append([]byte{2, 4}, text...)) // docs/order-log.md
	if err != nil {
		t.Fatal(err)
	}
	return pos
}

func TestStatusShowsWhatADeadCoordinatorLeft(t *testing.T) {
	t.Parallel()
	log, a, b := clusters(t)
	toml := underOrder(log, a, b)
	ranOnce(t, toml, "a", "z", "z")
	since := time.Now().Add(-time.Hour)
	id := opened(t, log, order.Open{Nonce: "1", Until: 1000, Shards: []int{0, 1}, Items: 3, By: "host-7:2379", At: since.UnixMilli()})
	second := opened(t, log, order.Open{Nonce: "2", Until: 1000, Shards: []int{1}, By: "host-8:2379", At: since.UnixMilli()})
	if _, err := a.Client().Put(t.Context(), stages.FenceKey, fmt.Sprintf("%020d/0", id)); err != nil {
		t.Fatal(err)
	}
	code, text, stderr := statusOf(t, toml)
	if code != 0 {
		t.Errorf("exit %d: %s", code, stderr)
	}
	squeezed := strings.Join(strings.Fields(text), " ")
	for _, want := range []string{
		"2 shards, one revision", "revision 4, compacted at 0; the order log is at position",
		"as seen by sharder status at", fmt.Sprintf("a 4 3 1 %d - ", id), "b 4 4 0 - - ",
		fmt.Sprintf("%d 1h0m", id), "active fence: no fence yet on b host-7:2379 3 a, b",
		fmt.Sprintf("queued open: it waits for batch %d host-8:2379 leases b", id),
		fmt.Sprintf("problem: batch %d is open for 1h0m", id),
	} {
		if !strings.Contains(squeezed, want) {
			t.Errorf("%q is not in\n%s", want, text)
		}
	}
	r := reported(t, 0, toml)
	if len(r.Transactions) != 2 {
		t.Fatalf("%+v", r.Transactions)
	}
	tx, pin := r.Transactions[0], r.Transactions[1]
	if tx.ID != id || tx.State != order.StateActive || tx.Kind != "transactions" || !slices.Equal(tx.Fenced, []string{"a"}) || tx.By != "host-7:2379" || tx.Age < 3600 || !tx.Opened.Equal(time.UnixMilli(since.UnixMilli())) {
		t.Errorf("%+v", tx)
	}
	if pin.ID != second || pin.State != order.StateQueued || pin.Kind != "leases" || !slices.Equal(pin.Behind, []int64{id}) || !slices.Equal(pin.Left, []string{"b"}) {
		t.Errorf("%+v", pin)
	}
}

func TestStatusWritesNothing(t *testing.T) {
	t.Parallel()
	log, a, b := clusters(t)
	toml := underOrder(log, a, b)
	revisions := func() (revs []int64) {
		for _, e := range []*etcdtest.Etcd{log, a, b} {
			g, err := e.Client().Get(t.Context(), "\x00", clientv3.WithFromKey(), clientv3.WithCountOnly())
			if err != nil {
				t.Fatal(err)
			}
			revs = append(revs, g.Header.Revision)
		}
		return revs
	}
	// A deployment that has not begun does not begin by being asked.
	r := reported(t, 1, toml)
	if p := strings.Join(r.Problems, "\n"); !strings.Contains(p, "the deployment has not begun") || r.Complete || r.Order.Known {
		t.Errorf("%+v", r)
	}
	if revs := revisions(); !slices.Equal(revs, []int64{1, 1, 1}) {
		t.Errorf("the etcds are at %v", revs)
	}
	ranOnce(t, toml, "a", "z")
	before := revisions()
	if r := reported(t, 0, toml); len(r.Problems) > 0 || r.Order.Revision != 3 {
		t.Errorf("%+v", r)
	}
	if after := revisions(); !slices.Equal(before, after) {
		t.Errorf("the etcds were at %v and are at %v", before, after)
	}
}

func TestStatusSaysTheSameThroughASharder(t *testing.T) {
	t.Parallel()
	log, a, b := clusters(t)
	toml := underOrder(log, a, b)
	run, address := withSite(t, toml)
	putAt(t, run.client(), "a")
	var direct, through *report
	within(t, 30*time.Second, func() error { // a running sharder does not wait long for its clusters
		direct, through = reported(t, 0, toml), reported(t, -1, toml, "--endpoint", address)
		if !through.Complete {
			return fmt.Errorf("%q", through.Problems)
		}
		return nil
	})
	if direct.From != "sharder status" || through.From != "a running sharder at "+address {
		t.Errorf("from %q and %q", direct.From, through.From)
	}
	for _, r := range []*report{direct, through} {
		r.From, r.Time = "", time.Time{}
		for _, c := range []*clusterReport{&r.Order.clusterReport, &r.Shards[0].clusterReport, &r.Shards[1].clusterReport} {
			if c.Version == "" || c.Leader == "" || c.DBSize == 0 || c.DBSizeInUse == 0 {
				t.Errorf("%+v", c)
			}
			c.DBSize, c.DBSizeInUse = 0, 0 // they may change at any time
		}
	}
	one, _ := json.Marshal(direct)
	other, _ := json.Marshal(through)
	if !bytes.Equal(one, other) || direct.Deployment == "" || direct.Order.Revision != 2 || direct.Shards[0].Revision != 3 || direct.Shards[0].Lag != 0 {
		t.Errorf("%s\n%s", one, other)
	}
}

func TestStatusOfEmbeddedEtcdsAsksTheirSharder(t *testing.T) {
	t.Parallel()
	toml := fmt.Sprintf("data_dir = %q\n[order]\nembedded = true\n[shards.a]\nembedded = true\n", filepath.Join(t.TempDir(), "data"))
	code, _, stderr := statusOf(t, toml)
	if code != exitFailed || !strings.Contains(stderr, "lives inside the running sharder") || !strings.Contains(stderr, "--endpoint") {
		t.Errorf("exit %d: %s", code, stderr)
	}
	address := ports.Of(t)
	seen := fmt.Sprintf("metrics = %q\n%s", address, toml)
	code, _, stderr = statusOf(t, seen)
	if code != exitFailed || !strings.Contains(stderr, "no sharder answers at "+address) || !strings.Contains(stderr, "only while its sharder runs") {
		t.Errorf("exit %d: %s", code, stderr)
	}
	r := start(t, seen)
	putAt(t, r.client(), "k")
	within(t, 30*time.Second, func() error { // a running sharder does not wait long for its clusters
		if r := reported(t, -1, seen); !r.Complete || r.Order.Revision != 2 || len(r.Problems) > 0 {
			return fmt.Errorf("%+v", r)
		}
		return nil
	})
}

func TestStatusSaysWhoDoesNotAnswer(t *testing.T) {
	t.Parallel()
	log, a, b := clusters(t)
	toml := underOrder(log, a, b)
	ranOnce(t, toml, "a", "z")
	b.Stop()
	code, text, _ := statusOf(t, toml)
	if code != exitFailed || !strings.Contains(text, "no answer") || !strings.Contains(text, "problem: shard b: no member answers") {
		t.Errorf("exit %d\n%s", code, text)
	}
	b.Restart()
	log.Stop()
	if _, text, _ := statusOf(t, toml); !strings.Contains(text, "are open is not known") || strings.Contains(text, "is open\n") {
		t.Errorf("%s", text)
	}
	r := reported(t, 1, toml)
	if len(r.Problems) != 1 || !strings.Contains(r.Problems[0], "the order log could not be read") || r.Shards[0].Revision != 3 || r.Shards[1].Revision != 3 {
		t.Errorf("%+v", r)
	}
}

func TestStatusSeesAShardThatIsNotWhatItWas(t *testing.T) {
	t.Parallel()
	log, a, b := clusters(t)
	ranOnce(t, underOrder(log, a, b), "a", "b", "z")
	stamp, err := a.Client().Get(t.Context(), stages.StampKey)
	if err != nil {
		t.Fatal(err)
	}
	for want, opts := range map[string][]etcdtest.Option{
		"shard a went back in time: it stands at its revision 2, and had reached 4 before": nil,
		"shard a is the etcd cluster ": {func(c *embed.Config) { c.InitialClusterToken = "another" }},
	} {
		fresh := etcdtest.Start(t, opts...) // in the place of a, with its stamp and nothing else
		if _, err := fresh.Client().Put(t.Context(), stages.StampKey, string(stamp.Kvs[0].Value)); err != nil {
			t.Fatal(err)
		}
		r := reported(t, 0, underOrder(log, fresh, b))
		if len(r.Problems) != 1 || !strings.HasPrefix(r.Problems[0], want) || r.Shards[0].Refused != r.Problems[0] {
			t.Errorf("%+v", r)
		}
	}
	r := reported(t, 0, underOrder(log, etcdtest.Start(t), b))
	if p := strings.Join(r.Problems, "; "); !strings.Contains(p, "shard a has no stamp") {
		t.Errorf("%+v", r)
	}
}

func TestStatusWithAnotherFileIsRefused(t *testing.T) {
	t.Parallel()
	log, a, b := clusters(t)
	toml := underOrder(log, a, b)
	ranOnce(t, toml, "a")
	code, _, stderr := statusOf(t, strings.Replace(toml, `"m"`, `"n"`, 1))
	if code != exitFailed || !strings.Contains(stderr, "the order log was made for other routes") {
		t.Errorf("exit %d: %s", code, stderr)
	}
	if code, _, stderr := statusOf(t, "nonsense = 1\n"); code != exitMisused || !strings.Contains(stderr, "nonsense") {
		t.Errorf("exit %d: %s", code, stderr)
	}
	if code, _, stderr := statusOf(t, "[gateways.g]\nlisten = \"127.0.0.1:1\"\nendpoints = [\"127.0.0.1:2\"]\n"); code != exitMisused || !strings.Contains(stderr, "gateways alone") {
		t.Errorf("exit %d: %s", code, stderr)
	}
	if code, _, stderr := statusOf(t, toml, "more"); code != exitMisused || !strings.Contains(stderr, `"more"`) {
		t.Errorf("exit %d: %s", code, stderr)
	}
}

func TestStatusWithoutAnOrderTellsEachShard(t *testing.T) {
	t.Parallel()
	a, b := etcdtest.Start(t), etcdtest.Start(t)
	toml := external(a.Endpoint, b.Endpoint)
	ranOnce(t, toml, "a", "a", "z")
	r := reported(t, 0, toml)
	if r.Order != nil || r.Deployment == "" || len(r.Problems) > 0 || r.Shards[0].Revision != 4 || r.Shards[1].Revision != 3 || r.Shards[0].Covered != 0 {
		t.Errorf("%+v", r)
	}
	_, text, _ := statusOf(t, toml)
	if !strings.Contains(text, r.Deployment+": 2 shards, each with its own revisions") || strings.Contains(text, "transaction") {
		t.Errorf("%s", text)
	}
	// A single shard without order carries nothing of sharder's.
	toml = fmt.Sprintf("[shards.a]\nendpoints = [%q]\n", etcdtest.Start(t).Endpoint)
	if _, text, _ := statusOf(t, toml); !strings.Contains(text, "one etcd cluster; revisions are its own") || !strings.Contains(text, "no problem found") {
		t.Errorf("%s", text)
	}
}

func TestStatusTellsAlarmsOfAShard(t *testing.T) {
	t.Parallel()
	e := etcdtest.Start(t)
	toml := fmt.Sprintf("[shards.a]\nendpoints = [%q]\n", e.Endpoint)
	full := &pb.AlarmRequest{Action: pb.AlarmRequest_ACTIVATE, MemberID: uint64(e.Server().Server.MemberID()), Alarm: pb.AlarmType_NOSPACE}
	if _, err := pb.NewMaintenanceClient(e.Conn()).Alarm(t.Context(), full); err != nil {
		t.Fatal(err)
	}
	code, text, _ := statusOf(t, toml)
	if code != 0 || !strings.Contains(text, "problem: shard a: ") || !strings.Contains(text, "NOSPACE") {
		t.Errorf("exit %d\n%s", code, text)
	}
}
