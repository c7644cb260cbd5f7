package main

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/sharder/sharder/integration/certs"
	"github.com/sharder/sharder/integration/etcdproc"
	"github.com/sharder/sharder/integration/etcdtest"
	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
)

// member runs sharder member against a sharder, with more time than it has by itself.
func member(t *testing.T, r *sharderRun, args ...string) (code int, out string) {
	t.Helper()
	var stdout, stderr bytes.Buffer
	code = runMember(append(slices.Clone(args), "--endpoint", r.up(), "--timeout", "60s"), &stdout, &stderr)
	return code, stdout.String() + stderr.String()
}

// memberRows is what it prints as JSON.
func memberRows(t *testing.T, r *sharderRun, args ...string) (rows []memberRow) {
	t.Helper()
	rows, err := tryMemberRows(t, r, args...)
	if err != nil {
		t.Fatal(err)
	}
	return rows
}

// tryMemberRows is memberRows where members may be about to elect a leader.
func tryMemberRows(t *testing.T, r *sharderRun, args ...string) (rows []memberRow, err error) {
	t.Helper()
	code, out := member(t, r, append(slices.Clone(args), "--json")...)
	if err := json.Unmarshal([]byte(out), &rows); err != nil || code != 0 {
		return nil, fmt.Errorf("%q: exit %d, %w\n%s", args, code, err, out)
	}
	return rows, nil
}

// says wants sharder member to end with a code, and to print all of these.
func says(t *testing.T, r *sharderRun, want int, texts []string, args ...string) {
	t.Helper()
	code, out := member(t, r, args...)
	for _, text := range texts {
		if code != want || !strings.Contains(out, text) {
			t.Errorf("%q: exit %d, %q is not in\n%s", args, code, text, out)
		}
	}
}

// election is what etcd says when an election comes in between, or members are slow.
var election = regexp.MustCompile(`etcdserver: (leader changed|no leader|request timed out)`)

func TestMembersOfAClusterAreLookedAfter(t *testing.T) {
	t.Parallel()
	e := etcdproc.Start(t, 3)
	r := start(t, fmt.Sprintf("[shards.main]\nendpoints = [\"%s\"]\n", strings.Join(e.Endpoints(), `", "`)))
	c := r.client()
	for i := range 50 {
		putAt(t, c, fmt.Sprint("k", i))
	}
	says(t, r, 0, []string{"NAME", "http://" + r.endpoint}, "list")
	if rows := memberRows(t, r, "list", "--shard", "main"); len(rows) != 3 || rows[0].PeerURLs == nil {
		t.Errorf("%+v", rows)
	}
	leader := func() (name string, err error) {
		rows, err := tryMemberRows(t, r, "status")
		leaders := 0
		for _, row := range rows {
			if row.role() == "leader" {
				name, leaders = row.Name, leaders+1
			}
			if row.Version == "" || row.DBSize == 0 || row.RaftApplied == 0 || row.Leader == "" {
				t.Errorf("%+v", row)
			}
		}
		if err == nil && (len(rows) != 3 || leaders != 1) {
			err = fmt.Errorf("%+v", rows)
		}
		return name, err
	}
	for i := range 3 {
		name := fmt.Sprintf("m%d", i)
		within(t, time.Minute, func() error { // the members may elect another one at any time
			have, err := leader()
			if err != nil || have == name {
				return err
			}
			switch code, out := member(t, r, "move-leader", name); {
			case election.MatchString(out):
				return errors.New(out)
			case code != 0 || !strings.Contains(out, name+" (") || !strings.Contains(out, ") leads"):
				t.Fatalf("move-leader %s: exit %d\n%s", name, code, out)
			}
			if have, err = leader(); err == nil && have != name {
				err = fmt.Errorf("%s leads, not %s", have, name)
			}
			return err
		})
	}
	if rows := memberRows(t, r, "status", "--member", "m1"); len(rows) != 1 || rows[0].Name != "m1" {
		t.Errorf("%+v", rows)
	}
	within(t, 30*time.Second, func() error { // a member may not have all yet
		hashes, err := tryMemberRows(t, r, "hashkv")
		if err == nil && len(hashes) != 3 {
			err = fmt.Errorf("%+v", hashes)
		}
		for _, row := range hashes {
			if row.Hash == 0 || row.Hash != hashes[0].Hash || row.HashRevision < 51 {
				t.Errorf("%+v", hashes)
			}
		}
		return err
	})
	says(t, r, 0, []string{"defragmented all members"}, "defrag")
	says(t, r, 0, []string{"defragmented member m2 of main"}, "defrag", "--member", "m2", "--shard", "main")
	file := filepath.Join(t.TempDir(), "snapshot")
	says(t, r, 0, []string{"saved ", file}, "snapshot", file, "--member", "m0")
	if blob, err := os.ReadFile(file); err != nil || !bytes.Contains(blob, []byte("k49")) {
		t.Errorf("%d bytes, %v", len(blob), err)
	}
	full := &pb.AlarmRequest{Action: pb.AlarmRequest_ACTIVATE, MemberID: 17, Alarm: pb.AlarmType_NOSPACE}
	etcd := pb.NewMaintenanceClient(etcdtest.Conn(t, strings.TrimPrefix(e.Endpoint(0), "http://")))
	within(t, 30*time.Second, func() error { _, err := etcd.Alarm(t.Context(), full); return err })
	says(t, r, 0, []string{"11  NOSPACE"}, "alarm", "list")
	says(t, r, 0, []string{"DISARMED", "11  NOSPACE"}, "alarm", "disarm")
	if rows := memberRows(t, r, "alarm"); len(rows) != 0 {
		t.Errorf("%+v", rows)
	}
	says(t, r, 1, []string{`shard main has no member "m9"; there is m`, "m0 (", "m1 (", "m2 ("}, "status", "--member", "m9")
	says(t, r, 1, []string{`there is no member "m9"; there is m`, "m0 (", "m2 ("}, "move-leader", "m9")
	e.Kill(1)
	within(t, 30*time.Second, func() error {
		if code, out := member(t, r, "status"); code != 1 || strings.Count(out, "no answer") != 1 || !strings.Contains(out, "m1: sharder: shard main: member ") {
			return fmt.Errorf("exit %d:\n%s", code, out)
		}
		return nil
	})
}

func TestMembersOfSeveralClustersAreNamedWithTheirShard(t *testing.T) {
	t.Parallel()
	order, a, b := clusters(t)
	r := start(t, underOrder(order, a, b))
	putAt(t, r.client(), "k")
	for shard, e := range map[string]*etcdtest.Etcd{"a": a, "b": b, "[order]": order} {
		rows := memberRows(t, r, "status", "--shard", shard)
		if len(rows) != 1 || rows[0].ID != hex(uint64(e.Server().Server.MemberID())) || rows[0].role() != "leader" {
			t.Errorf("%+v", rows)
		}
	}
	if rows := memberRows(t, r, "status"); len(rows) != 1 || rows[0].Name != "all shards" || rows[0].DBSize == 0 {
		t.Errorf("%+v", rows)
	}
	says(t, r, 1, []string{"name one in the metadata sharder-shard (a, b, [order])", "--shard NAME"}, "hashkv")
	says(t, r, 1, []string{"name one in the metadata sharder-shard"}, "snapshot", filepath.Join(t.TempDir(), "s"))
	says(t, r, 1, []string{`there is no shard "c"; there is a, b, [order]`}, "status", "--shard", "c")
	says(t, r, 1, []string{"a member is named, and no shard of it"}, "status", "--member", "leader")
	says(t, r, 0, []string{"defragmented"}, "defrag", "--shard=[order]")
}

func TestMemberSpeaksTLSAndLogsIn(t *testing.T) {
	t.Parallel()
	e := etcdtest.Start(t, cheap)
	enableAuth(t, e.Client())
	ca := certs.New(t, "ca")
	cert, key := ca.Issue("sharder")
	r := start(t, fmt.Sprintf("[shards.a]\nendpoints = [%q]\n[tls]\ncert = %q\nkey = %q\nclient_ca = %q\n", e.Endpoint, cert, key, ca.File))
	own, ownKey := ca.Issue("operator")
	tls := []string{"--cacert", ca.File, "--cert", own, "--key", ownKey}
	within(t, 30*time.Second, func() error {
		if code, out := member(t, r, append(tls, "--user", "root:pw")...); code != exitMisused {
			return fmt.Errorf("without a verb: exit %d, %s", code, out)
		}
		if code, out := member(t, r, append([]string{"status", "--user", "root:pw"}, tls...)...); code != 0 || !strings.Contains(out, "leader") {
			return fmt.Errorf("exit %d, %s", code, out)
		}
		return nil
	})
	says(t, r, 1, []string{"user name is empty"}, append([]string{"defrag"}, tls...)...)
	says(t, r, 1, []string{"authentication failed"}, append([]string{"defrag", "--user", "root:wrong"}, tls...)...)
	says(t, r, 1, []string{"connection"}, "list")
}

func TestMemberSaysHowItIsMisused(t *testing.T) {
	for _, c := range []struct {
		args []string
		want string
	}{
		{nil, "a verb comes first"}, {[]string{"remove"}, `"remove" is no verb`}, {[]string{"list", "x"}, `unexpected argument "x"`},
		{[]string{"snapshot"}, "Name a file"}, {[]string{"move-leader"}, "Name a member"}, {[]string{"alarm", "raise"}, `"raise" is not list or disarm`},
		{[]string{"status", "--rev", "5"}, "--rev is for hashkv"}, {[]string{"list", "--member", "m"}, "--member has no meaning with list"},
		{[]string{"status", "--nonsense"}, "nonsense"}, {[]string{"status", "--cert", "x"}, "--cert and --key go together"},
		{[]string{"status", "--user", "root"}, "there is no password"}, {[]string{"status", "--password-file", "x"}, "which is not there"},
		{[]string{"status", "--user", "root:pw", "--password-file", "x"}, "already"}, {[]string{"status", "--user", "root", "--password-file", "/nowhere"}, "/nowhere"},
	} {
		var stdout, stderr bytes.Buffer
		if code := runMember(c.args, &stdout, &stderr); code != exitMisused || !strings.Contains(stderr.String(), c.want) {
			t.Errorf("%q: exit %d, %s", c.args, code, stderr.String())
		}
	}
	var stdout, stderr bytes.Buffer
	if code := run([]string{"member", "status", "--help"}, &stdout, &stderr); code != 0 || !strings.Contains(stderr.String(), "move-leader MEMBER") || !strings.Contains(stderr.String(), "-endpoint") {
		t.Errorf("help: exit %d, %s", code, stderr.String())
	}
}
