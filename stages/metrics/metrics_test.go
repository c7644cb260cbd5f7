package metrics_test

import (
	"context"
	"errors"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/sharder/sharder/integration/leaks"
	"github.com/sharder/sharder/pipeline"
	"github.com/sharder/sharder/stages/metrics"
	"github.com/sharder/sharder/stages/order"
)

func TestMain(m *testing.M) { leaks.Main(m) }

// scrape gives what Prometheus would read, by name and labels.
func scrape(t *testing.T, m *metrics.Metrics) map[string]string {
	t.Helper()
	w := httptest.NewRecorder()
	m.Handler().ServeHTTP(w, httptest.NewRequest("GET", "/metrics", nil))
	if w.Code != 200 {
		t.Fatalf("%d: %s", w.Code, w.Body)
	}
	found := map[string]string{}
	for line := range strings.Lines(w.Body.String()) {
		if name, value, ok := strings.Cut(strings.TrimSpace(line), " "); ok && name != "#" {
			found[name] = value
		}
	}
	return found
}

// expect compares some of what is scraped; "" is not there at all.
func expect(t *testing.T, m *metrics.Metrics, want map[string]string) {
	t.Helper()
	have := scrape(t, m)
	for name, value := range want {
		if have[name] != value {
			t.Errorf("%s is %q, want %q", name, have[name], value)
		}
	}
}

func noPanics(ctx context.Context, req any, _ *grpc.UnaryServerInfo, next grpc.UnaryHandler) (any, error) {
	return next(ctx, req)
}

// ask sends a unary RPC that ends with an error through the interceptor.
func ask(i grpc.UnaryServerInterceptor, method string, err error) error {
	_, got := i(context.Background(), nil, &grpc.UnaryServerInfo{FullMethod: method}, func(context.Context, any) (any, error) { return nil, err })
	return got
}

func TestRequestsAreCountedByWhatTheClientIsTold(t *testing.T) {
	m := metrics.New("v1", "go1")
	i := m.Unary(noPanics)
	refusal := status.Error(codes.InvalidArgument, "no")
	for method, errs := range map[string][]error{
		"/etcdserverpb.KV/Range":   {nil, nil, context.Canceled},
		"/etcdserverpb.KV/Put":     {refusal, errors.New("odd"), context.DeadlineExceeded},
		"/v3lockpb.Lock/Lock":      {nil},
		"/made.up/Name":            {refusal},
		"/etcdserverpb.KV/Another": {refusal},
	} {
		for _, err := range errs {
			if got := ask(i, method, err); got != err {
				t.Errorf("the interceptor made %v of %v", got, err)
			}
		}
	}
	expect(t, m, map[string]string{
		`sharder_build_info{go_version="go1",version="v1"}`:                "1",
		`sharder_rpc_requests_total{code="OK",rpc="KV/Range"}`:             "2",
		`sharder_rpc_requests_total{code="Canceled",rpc="KV/Range"}`:       "1",
		`sharder_rpc_requests_total{code="Unavailable",rpc="KV/Range"}`:    "",
		`sharder_rpc_requests_total{code="InvalidArgument",rpc="KV/Put"}`:  "1",
		`sharder_rpc_requests_total{code="Unknown",rpc="KV/Put"}`:          "1",
		`sharder_rpc_requests_total{code="DeadlineExceeded",rpc="KV/Put"}`: "1",
		`sharder_rpc_requests_total{code="OK",rpc="Lock/Lock"}`:            "1",
		`sharder_rpc_requests_total{code="InvalidArgument",rpc="other"}`:   "2",
		`sharder_rpc_duration_seconds_count{rpc="KV/Range"}`:               "3",
	})
}

func TestStreamsAreCountedWhileTheyAreOpen(t *testing.T) {
	m := metrics.New("v1", "go1")
	i := m.Stream(func(srv any, s grpc.ServerStream, _ *grpc.StreamServerInfo, next grpc.StreamHandler) error {
		return next(srv, s)
	})
	run := func(method string, inside func()) {
		_ = i(nil, nil, &grpc.StreamServerInfo{FullMethod: method}, func(any, grpc.ServerStream) error { inside(); return nil })
	}
	const open = `sharder_rpc_streams_open{rpc="Watch/Watch"}`
	run("/etcdserverpb.Watch/Watch", func() { expect(t, m, map[string]string{open: "1"}) })
	// A unary RPC that is passed on as a stream is none.
	run("/etcdserverpb.Maintenance/Status", func() {})
	expect(t, m, map[string]string{
		open: "0",
		`sharder_rpc_requests_total{code="OK",rpc="Watch/Watch"}`:        "1",
		`sharder_rpc_duration_seconds_count{rpc="Watch/Watch"}`:          "",
		`sharder_rpc_streams_open{rpc="Maintenance/Status"}`:             "",
		`sharder_rpc_duration_seconds_count{rpc="Maintenance/Status"}`:   "1",
		`sharder_rpc_requests_total{code="OK",rpc="Maintenance/Status"}`: "1",
	})
}

// answers is a connection that says one thing.
type answers struct {
	grpc.ClientConnInterface
	err error
}

func (a *answers) Invoke(context.Context, string, any, any, ...grpc.CallOption) error { return a.err }

func TestCallsOfAShardAreCountedByOutcome(t *testing.T) {
	m := metrics.New("v1", "go1")
	a := &answers{}
	c := m.Conn("a", a)
	for _, err := range []error{
		nil, nil, status.Error(codes.Unavailable, ""), status.Error(codes.OutOfRange, "compacted"),
		status.Error(codes.DeadlineExceeded, ""), context.Canceled,
	} {
		a.err = err
		if got := c.Invoke(t.Context(), "m", nil, nil); got != err {
			t.Errorf("the connection made %v of %v", got, err)
		}
	}
	expect(t, m, map[string]string{
		`sharder_shard_calls_total{outcome="ok",shard="a"}`:          "2",
		`sharder_shard_calls_total{outcome="refused",shard="a"}`:     "1",
		`sharder_shard_calls_total{outcome="unavailable",shard="a"}`: "1",
		`sharder_shard_calls_total{outcome="timeout",shard="a"}`:     "1",
		`sharder_shard_calls_total{outcome="cancelled",shard="a"}`:   "1",
		`sharder_shard_call_duration_seconds_count{shard="a"}`:       "6",
	})
}

func TestNothingIsAllocatedForARequest(t *testing.T) {
	m := metrics.New("v1", "go1")
	i, info := m.Unary(noPanics), &grpc.UnaryServerInfo{FullMethod: "/etcdserverpb.KV/Range"}
	next := func(context.Context, any) (any, error) { return nil, nil }
	c := m.Conn("a", &answers{})
	ctx := t.Context()
	waited := m.FenceWaited([]string{"a"})
	for name, f := range map[string]func(){
		"an RPC": func() { _, _ = i(ctx, nil, info, next) },
		"a call": func() { _ = c.Invoke(ctx, "m", nil, nil) },
		"a step": func() { _ = m.Trace(ctx, order.Step{Name: order.StepFence}) },
		"an end": func() { m.Finished(order.Committed, time.Second) },
		"a wait": func() { waited(0, time.Second) },
	} {
		if n := testing.AllocsPerRun(100, f); n != 0 {
			t.Errorf("%s allocates %v times", name, n)
		}
	}
}

func TestALinkIsLookedAt(t *testing.T) {
	m, l := metrics.New("v1", "go1"), pipeline.NewLink(1, 0)
	m.Door(l)
	m.Lane("a", l)
	if l.Enter(t.Context()) != nil || l.Enter(t.Context()) == nil {
		t.Fatal("the link has not one place")
	}
	expect(t, m, map[string]string{
		`sharder_door_inside`: "1", `sharder_door_waiting`: "0", `sharder_door_refused_total`: "1",
		`sharder_lane_inside{shard="a"}`: "1", `sharder_lane_waiting{shard="a"}`: "0", `sharder_lane_refused_total{shard="a"}`: "1",
	})
	l.Leave()
	expect(t, m, map[string]string{`sharder_door_inside`: "0"})
}

func TestEveryStepAndOutcomeIsThereFromTheBeginning(t *testing.T) {
	m := metrics.New("v1", "go1")
	m.Order(order.New(order.Options{}))
	for _, s := range order.Steps {
		expect(t, m, map[string]string{`sharder_batch_step_duration_seconds_count{step="` + s + `"}`: "0"})
		if err := m.Trace(t.Context(), order.Step{Name: s, Items: 3}); err != nil {
			t.Error(err)
		}
		expect(t, m, map[string]string{`sharder_batch_step_duration_seconds_count{step="` + s + `"}`: "1"})
	}
	for _, o := range order.Outcomes {
		expect(t, m, map[string]string{`sharder_transactions_total{outcome="` + o + `"}`: "0"})
		m.Finished(o, time.Second)
		expect(t, m, map[string]string{`sharder_transactions_total{outcome="` + o + `"}`: "1"})
	}
	expect(t, m, map[string]string{
		"sharder_batch_items_sum": "3", "sharder_transaction_duration_seconds_sum": "4",
	})
}
