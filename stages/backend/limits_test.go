package backend

import (
	"context"
	"strings"
	"testing"
	"time"

	"github.com/sharder/sharder/integration/etcdtest"
	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	"go.etcd.io/etcd/server/v3/embed"
)

// limits starts an etcd with these limits and asks for them.
func limits(t *testing.T, ops, bytes uint) (Limits, *etcdtest.Etcd) {
	t.Helper()
	e := etcdtest.Start(t, func(c *embed.Config) { c.MaxTxnOps, c.MaxRequestBytes = ops, bytes })
	l, err := CheckLimits(within(t, 30*time.Second), e.Conn(), 1<<20)
	if err != nil {
		t.Fatal(err)
	}
	return l, e
}

func TestAShardThatIsTooNarrowIsToldWithTheFlagsToSet(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		ops, bytes uint
		flags      string
	}{
		{128, 1 << 20, "--max-txn-ops=256 --max-request-bytes=1572864"},
		{128, 1536 << 10, "--max-txn-ops=256"},
		{256, 1 << 20, "--max-request-bytes=1572864"},
		{256, 1 << 10, "--max-request-bytes=1572864"}, // refused by gRPC already
		{256, 1536 << 10, ""},
	} {
		l, e := limits(t, c.ops, c.bytes)
		if l.Flags() != c.flags || l.Enough() != (c.flags == "") {
			t.Errorf("%d operations and %d bytes: have %q, want %q", c.ops, c.bytes, l.Flags(), c.flags)
		}
		r, err := pb.NewKVClient(e.Conn()).Range(within(t, 30*time.Second), &pb.RangeRequest{Key: []byte{0}, RangeEnd: []byte{0}})
		if err != nil || r.Header.Revision != 1 || r.Count != 0 {
			t.Errorf("asking has left something: %v, %v", r, err)
		}
	}
}

func TestAFullShardIsNotTakenForANarrowOne(t *testing.T) {
	t.Parallel()
	e := etcdtest.Start(t, func(c *embed.Config) { c.MaxTxnOps, c.MaxRequestBytes = ShardTxnOps, 2<<20 })
	_, err := pb.NewMaintenanceClient(e.Conn()).Alarm(within(t, 30*time.Second), &pb.AlarmRequest{
		Action: pb.AlarmRequest_ACTIVATE, MemberID: uint64(e.Server().Server.MemberID()), Alarm: pb.AlarmType_NOSPACE,
	})
	if err != nil {
		t.Fatal(err)
	}
	if l, err := CheckLimits(within(t, 30*time.Second), e.Conn(), 1<<20); err != nil || !l.Enough() {
		t.Errorf("have %q, %v", l.Flags(), err)
	}
}

func TestAShardThatDoesNotAnswerHasNoLimits(t *testing.T) {
	t.Parallel()
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	if l, err := CheckLimits(ctx, etcdtest.Start(t).Conn(), 1<<20); err == nil || !l.Enough() {
		t.Errorf("have %q, %v", l.Flags(), err)
	}
}

func TestAnEmbeddedShardIsWideEnough(t *testing.T) {
	t.Parallel()
	e := start(t, EmbeddedOptions{Name: "a", Dir: t.TempDir(), MaxRequestBytes: 1<<20 + ShardRequestRoom, MaxTxnOps: ShardTxnOps})
	l, err := CheckLimits(within(t, 30*time.Second), etcdtest.Conn(t, e.Endpoint()), 1<<20)
	if err != nil || !l.Enough() {
		t.Errorf("have %q, %v", l.Flags(), err)
	}
}

func TestVersionsWithKnownFaultsAreTooOld(t *testing.T) {
	t.Parallel()
	for version, want := range map[string]bool{
		"3.4.24": true, "3.4.25": false, "3.4.0": true, "3.5.0": true, "3.5.7": true, "3.5.8": false, "3.5.21": false,
		"3.6.0": false, "3.6.0-rc.1": false, "3.7.1": false, "4.0.0": false, "3.3.27": true, "2.3.8": true,
		"": false, "latest": false, "3.x.1": false, "3.5.7-dev": true,
	} {
		if tooOld(version) != want {
			t.Errorf("%q: want %v", version, want)
		}
	}
	e := etcdtest.Start(t)
	c := serving(t, Options{Endpoints: []string{e.Endpoint}, HealthInterval: time.Hour}) // no probe comes in between
	if err := c.CheckVersion(within(t, 30*time.Second)); err != nil {
		t.Error(err)
	}
	// What an old member would have told its probe.
	m := c.roster.Load().seats[0].member
	m.answered(finding{told: true, version: "3.5.7"})
	err := c.outdated(m)
	if err == nil || !strings.Contains(err.Error(), "runs etcd 3.5.7; sharder needs 3.4.25, 3.5.8") {
		t.Errorf("have %v", err)
	}
}
