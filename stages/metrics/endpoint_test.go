package metrics_test

import (
	"testing"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/sharder/sharder/stages/metrics"
)

func TestEndpointsAreCountedAsLongAsTheyAreSome(t *testing.T) {
	m := metrics.New("v1", "go1")
	states := []metrics.EndpointState{{Endpoint: "h:1", Serves: true, Leads: true}, {Endpoint: "h:2"}, {Endpoint: "h:2", Serves: true}}
	m.Endpoints("a", func() []metrics.EndpointState { return states })
	m.Endpoints("b", func() []metrics.EndpointState { return nil })
	first, other := m.Endpoint("a", "h:1"), m.Endpoint("a", "h:2")
	first.Called(3*time.Millisecond, nil)
	first.Called(3*time.Millisecond, status.Error(codes.Unavailable, ""))
	first.Opened()
	other.Opened()
	expect(t, m, map[string]string{
		`sharder_endpoint_healthy{endpoint="h:1",shard="a"}`:                                 "1",
		`sharder_endpoint_leader{endpoint="h:1",shard="a"}`:                                  "1",
		`sharder_endpoint_healthy{endpoint="h:2",shard="a"}`:                                 "0",
		`sharder_endpoint_calls_total{endpoint="h:1",outcome="ok",shard="a"}`:                "1",
		`sharder_endpoint_calls_total{endpoint="h:1",outcome="unavailable",shard="a"}`:       "1",
		`sharder_endpoint_call_duration_seconds_count{endpoint="h:1",shard="a"}`:             "2",
		`sharder_endpoint_call_duration_seconds_bucket{endpoint="h:1",shard="a",le="0.002"}`: "0",
		`sharder_endpoint_streams_opened_total{endpoint="h:1",shard="a"}`:                    "1",
	})
	// It goes and comes back before what was under way on it has ended.
	again := m.Endpoint("a", "h:1")
	first.Gone()
	again.Opened()
	expect(t, m, map[string]string{`sharder_endpoint_streams_opened_total{endpoint="h:1",shard="a"}`: "2"})
	again.Gone()
	states = states[1:]
	expect(t, m, map[string]string{
		`sharder_endpoint_healthy{endpoint="h:1",shard="a"}`:                     "",
		`sharder_endpoint_calls_total{endpoint="h:1",outcome="ok",shard="a"}`:    "",
		`sharder_endpoint_call_duration_seconds_count{endpoint="h:1",shard="a"}`: "",
		`sharder_endpoint_streams_opened_total{endpoint="h:1",shard="a"}`:        "",
		`sharder_endpoint_streams_opened_total{endpoint="h:2",shard="a"}`:        "1",
	})
}
