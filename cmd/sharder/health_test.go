package main

import (
	"context"
	"encoding/json"
	"fmt"
	"net/url"
	"testing"
	"time"

	"github.com/sharder/sharder/integration/etcdproc"
	"github.com/sharder/sharder/integration/etcdtest"
	"github.com/sharder/sharder/integration/ports"
	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	"go.etcd.io/etcd/api/v3/version"
	"go.etcd.io/etcd/server/v3/embed"
)

const (
	wellReply = `{"health":"true","reason":""}`
	illReply  = `{"health":"false","reason":`
)

// With users at the shard and none of sharder's, /health and /version need none.
func TestHealthNeedsNoUser(t *testing.T) {
	t.Parallel()
	e := etcdtest.Start(t, cheap)
	enableAuth(t, e.Client())
	r, address := withSite(t, fmt.Sprintf("[shards.a]\nendpoints = [%q]\n", e.Endpoint))
	for _, at := range []string{address, r.endpoint} {
		for _, path := range []string{"/health", "/health?serializable=true", "/proxy/health"} {
			answers(t, at, path, 200, wellReply)
		}
		answers(t, at, "/readyz", 200, "ok\n")
		answers(t, at, "/version", 200, `{"etcdserver":"`+version.Version+`","etcdcluster":"3.7.0"`)
	}
	e.Stop()
	answers(t, address, "/health", 503, illReply+`"RANGE ERROR:`)
	answers(t, address, "/health?serializable=true", 503, illReply+`"RANGE ERROR:`)
	answers(t, address, "/version", 503, "no member tells its version")
}

// A shard without its quorum is not well, but for who reads without one.
func TestHealthWithoutAQuorum(t *testing.T) {
	t.Parallel()
	for _, auth := range []bool{false, true} {
		p := etcdproc.Start(t, 3)
		if auth {
			enableAuth(t, p.Client())
		}
		r, address := withSite(t, fmt.Sprintf("[shards.a]\nendpoints = [%q, %q, %q]\n", p.Endpoint(0), p.Endpoint(1), p.Endpoint(2)))
		answers(t, r.endpoint, "/health", 200, wellReply)
		p.Kill(1)
		answers(t, address, "/health", 200, wellReply)
		p.Kill(2)
		answers(t, address, "/health", 503, illReply)
		answers(t, address, "/health?serializable=true", 200, wellReply)
		answers(t, address, "/version", 200, `"etcdserver":"`+version.Version+`"`)
		p.Launch(1)
		answers(t, address, "/health", 200, wellReply)
	}
}

// An alarm of a shard is told with its name, unless it is excluded.
func TestHealthOverlooksTheAlarmsThatAreExcluded(t *testing.T) {
	t.Parallel()
	a, b := etcdtest.Start(t), etcdtest.Start(t)
	r, _ := withSite(t, external(a.Endpoint, b.Endpoint))
	putAt(t, r.client(), "z") // sharder has written what it writes once, which the alarm would keep it from
	answers(t, r.endpoint, "/health", 200, wellReply)
	raise := func(action pb.AlarmRequest_AlarmAction) {
		ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
		defer cancel()
		if _, err := pb.NewMaintenanceClient(b.Conn()).Alarm(ctx, &pb.AlarmRequest{Action: action, Alarm: pb.AlarmType_NOSPACE, MemberID: 1}); err != nil {
			t.Fatal(err)
		}
	}
	raise(pb.AlarmRequest_ACTIVATE)
	answers(t, r.endpoint, "/health", 503, illReply, "shard b: memberID:1 alarm:NOSPACE")
	answers(t, r.endpoint, "/health?exclude=NOSPACE", 200, wellReply)
	answers(t, r.endpoint, "/health?exclude=CORRUPT&serializable=true", 503, illReply)
	raise(pb.AlarmRequest_DEACTIVATE)
	answers(t, r.endpoint, "/health", 200, wellReply)
}

// The version of several shards is the lowest; a shard whose port speaks nothing but gRPC tells
// what its probes found, and one that is away what it told before.
func TestTheVersionIsTheLowestOfTheShards(t *testing.T) {
	t.Parallel()
	onlyGRPC := func(c *embed.Config) {
		c.ListenClientHttpUrls = []url.URL{{Scheme: "http", Host: ports.Of(t)}}
	}
	a, b := etcdtest.Start(t, onlyGRPC), etcdtest.Start(t)
	r, address := withSite(t, external(a.Endpoint, b.Endpoint))
	putAt(t, r.client(), "k")
	told := func() (v version.Versions) {
		t.Helper()
		within(t, 30*time.Second, func() error {
			code, body := fetch(address, "/version")
			if code != 200 {
				return fmt.Errorf("%d %s", code, body)
			}
			return json.Unmarshal([]byte(body), &v)
		})
		return v
	}
	want := version.Versions{Server: version.Version, Cluster: "3.7.0", Storage: "3.7.0"}
	within(t, 30*time.Second, func() error { // etcd decides on the last two a moment after it has started
		if v := told(); v != want {
			return fmt.Errorf("%+v", v)
		}
		return nil
	})
	b.Stop()
	within(t, 30*time.Second, func() error {
		if v := told(); v.Server != version.Version || v.Cluster != "3.7.0" {
			return fmt.Errorf("%+v", v)
		}
		return nil
	})
}
