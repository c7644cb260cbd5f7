package metrics_test

import (
	"net/http/httptest"
	"testing"

	"github.com/prometheus/client_golang/prometheus/testutil/promlint"

	"github.com/sharder/sharder/pipeline"
	"github.com/sharder/sharder/stages/cache"
	"github.com/sharder/sharder/stages/gateway"
	"github.com/sharder/sharder/stages/metrics"
	"github.com/sharder/sharder/stages/order"
)

func TestNamesAndTextsAreAsPrometheusWantsThem(t *testing.T) {
	m := metrics.New("v1", "go1")
	m.Door(pipeline.NewLink(1, 1))
	m.Lane("a", pipeline.NewLink(1, 1))
	m.Cluster("a", func() bool { return true }, func() bool { return true })
	m.Conn("a", nil)
	m.Endpoint("a", "h:1").Opened()
	m.Endpoints("a", func() []metrics.EndpointState { return []metrics.EndpointState{{Endpoint: "h:1"}} })
	m.FenceWaited([]string{"a"})
	m.Order(order.New(order.Options{}))
	m.Cache(cache.New(cache.Options{}))
	m.Gateways(map[string]func() gateway.Stats{"g": func() gateway.Stats { return gateway.Stats{} }})
	if err := ask(m.Unary(noPanics), "/etcdserverpb.KV/Range", nil); err != nil {
		t.Fatal(err)
	}
	w := httptest.NewRecorder()
	m.Handler().ServeHTTP(w, httptest.NewRequest("GET", "/metrics", nil))
	problems, err := promlint.New(w.Body).Lint()
	if err != nil || len(scrape(t, m)) < 100 {
		t.Fatalf("%v, %d lines", err, len(scrape(t, m)))
	}
	for _, p := range problems {
		t.Errorf("%s: %s", p.Metric, p.Text)
	}
}
