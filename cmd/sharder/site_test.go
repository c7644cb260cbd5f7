package main

import (
	"bufio"
	"fmt"
	"io"
	"maps"
	"net/http"
	"os"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/sourcegraph/conc"

	"github.com/sharder/sharder/conf"
	"github.com/sharder/sharder/integration/cable"
	"github.com/sharder/sharder/integration/etcdtest"
	"github.com/sharder/sharder/integration/ports"
	clientv3 "go.etcd.io/etcd/client/v3"
)

// withSite runs a sharder with an HTTP side, and gives the address of that.
func withSite(t *testing.T, toml string) (r *sharderRun, address string) {
	t.Helper()
	address = ports.Of(t)
	return start(t, fmt.Sprintf("metrics = %q\n%s", address, toml)), address
}

// fetch gets a page, 0 if nobody answers.
func fetch(address, path string) (code int, body string) {
	client := http.Client{Transport: &http.Transport{DisableKeepAlives: true}, Timeout: 30 * time.Second}
	resp, err := client.Get("http://" + address + path)
	if err != nil {
		return 0, err.Error()
	}
	defer resp.Body.Close()
	text, err := io.ReadAll(resp.Body)
	if err != nil {
		return 0, err.Error()
	}
	return resp.StatusCode, string(text)
}

// answers waits until a page is answered with a code and a text that has want in it.
func answers(t *testing.T, address, path string, code int, want ...string) {
	t.Helper()
	within(t, time.Minute, func() error {
		have, body := fetch(address, path)
		for _, w := range want {
			if have != code || !strings.Contains(body, w) {
				return fmt.Errorf("%s: %d %q, want %d and %q", path, have, body, code, w)
			}
		}
		return nil
	})
}

func TestReadyzSaysWhatASharderWaitsFor(t *testing.T) {
	t.Parallel()
	order, a, b := clusters(t)
	toml := underOrder(order, a, b)
	first := start(t, toml)
	putAt(t, first.client(), "k")
	if err := first.end(); err != nil {
		t.Fatal(err)
	}
	order.Stop()
	b.Stop()
	r, address := withSite(t, toml)
	answers(t, address, "/readyz", 503, "[-]serving failed: it does not serve yet\n[-]order_log failed: the order log has not been read yet\n[-]shards failed: the stamp could not be checked yet of a, b\n")
	answers(t, address, "/livez", 200, "ok\n")
	answers(t, address, "/health", 503, `{"health":"false","reason":"it does not serve yet"}`)
	order.Restart()
	answers(t, address, "/readyz", 503, "[+]serving ok\n[+]order_log ok\n[-]shards failed: the stamp could not be checked yet of b\n")
	answers(t, address, "/readyz/order_log", 200, "ok\n")
	answers(t, address, "/readyz/shards", 503, "[-]shards failed")
	answers(t, address, "/readyz?exclude=shards", 200, "ok\n")
	b.Restart()
	answers(t, address, "/readyz", 200, "ok\n")
	answers(t, address, "/readyz?verbose", 200, "[+]serving ok\n[+]order_log ok\n[+]shards ok\nok\n")
	// What goes away later is no reason to send clients elsewhere.
	b.Stop()
	answers(t, address, "/health", 503, "shard b")
	answers(t, address, "/readyz", 200, "ok\n")
	if err := r.end(); err != nil {
		t.Fatal(err)
	}
	if code, body := fetch(address, "/livez"); code != 0 {
		t.Errorf("after the end it answers %d %q", code, body)
	}
}

func TestReadyzSaysThatItDrains(t *testing.T) {
	t.Parallel()
	e := etcdtest.Start(t)
	wire := cable.New(t, e.Endpoint)
	// Nothing notices that the shard is silent, and gives the put up, before the test is done.
	const patient = "health_interval = \"60s\"\nkeepalive_time = \"60s\"\ntimeout = \"120s\"\n"
	r, address := withSite(t, fmt.Sprintf("drain_timeout = \"120s\"\n[shards.a]\nendpoints = [%q]\n%s", wire.Addr, patient))
	c := r.client()
	within(t, 30*time.Second, func() error { return put(c, "k") })
	answers(t, address, "/readyz", 200, "ok\n")
	wire.Hold() // the put is under way until the cable lets it pass
	var wg conc.WaitGroup
	defer wg.Wait()
	ended := make(chan error, 1)
	wg.Go(func() {
		_, err := c.Put(t.Context(), "k", "v")
		ended <- err
	})
	serves(t, address, "sharder_door_inside 1")
	r.stop()
	answers(t, address, "/readyz", 503, "[-]serving failed: it is draining\n")
	answers(t, address, "/livez", 200, "ok\n")
	wire.Release()
	if err := <-ended; err != nil {
		t.Errorf("the put that was under way: %v", err)
	}
	if err := r.end(); err != nil {
		t.Error(err)
	}
}

func TestHealthNamesWhatIsNotWell(t *testing.T) {
	t.Parallel()
	order, a, b := clusters(t)
	r, address := withSite(t, underOrder(order, a, b))
	putAt(t, r.client(), "k")
	answers(t, address, "/health", 200, `{"health":"true","reason":""}`)
	a.Stop()
	answers(t, address, "/health", 503, `"health":"false"`, "shard a: ")
	order.Stop()
	answers(t, address, "/health", 503, "the order log could not be read: ")
	a.Restart()
	order.Restart()
	answers(t, address, "/health", 200, `{"health":"true","reason":""}`)
}

func TestAnAddressForMetricsInUseIsTold(t *testing.T) {
	t.Parallel()
	e := etcdtest.Start(t)
	r := start(t, fmt.Sprintf("metrics = %q\n[shards.a]\nendpoints = [%q]\n", freeAddressInUse(t), e.Endpoint))
	refused(t, r, "address already in use", `metrics = "..."`, "test.toml")
}

// freeAddressInUse is an address that somebody listens on for as long as the test runs.
func freeAddressInUse(t *testing.T) string {
	t.Helper()
	return cable.New(t, "127.0.0.1:1").Addr
}

// family is a metric as a page or a scrape has it.
type family struct{ kind, labels string }

var (
	metricRow  = regexp.MustCompile("(?m)^\\| `(sharder_[a-z_]+)` \\| (counter|gauge|histogram) \\| ([^|]*) \\| [^|]+ \\|$")
	metricType = regexp.MustCompile(`^# TYPE (sharder_\S+) (\w+)$`)
	metricLine = regexp.MustCompile(`^(sharder_[a-z_]+)(?:\{(.*)\})? `)
	labelName  = regexp.MustCompile(`([a-z_]+)="[^"]*"`)
)

// documented are the metrics of docs/operations.md.
func documented(t *testing.T) map[string]family {
	t.Helper()
	page, err := os.ReadFile("../../docs/operations.md")
	if err != nil {
		t.Fatal(err)
	}
	_, table, _ := strings.Cut(string(page), "<!-- metrics -->")
	table, _, _ = strings.Cut(table, "<!-- /metrics -->")
	rows := metricRow.FindAllStringSubmatch(table, -1)
	if lines := strings.Count(strings.TrimSpace(table), "\n") - 1; len(rows) < 20 || len(rows) != lines {
		t.Fatalf("%d of %d rows of the table can be read", len(rows), lines)
	}
	all := map[string]family{}
	for _, r := range rows {
		all[r[1]] = family{r[2], strings.ReplaceAll(strings.TrimSpace(r[3]), "`", "")}
	}
	return all
}

// served are the metrics in what was scraped.
func served(scraped string) map[string]family {
	all := map[string]family{}
	labels := map[string]map[string]bool{}
	s := bufio.NewScanner(strings.NewReader(scraped))
	for s.Scan() {
		if m := metricType.FindStringSubmatch(s.Text()); m != nil {
			all[m[1]], labels[m[1]] = family{kind: m[2]}, map[string]bool{}
			continue
		}
		m := metricLine.FindStringSubmatch(s.Text())
		if m == nil {
			continue
		}
		name := m[1]
		for _, suffix := range []string{"_bucket", "_sum", "_count"} {
			if base := strings.TrimSuffix(m[1], suffix); all[base].kind == "histogram" {
				name = base
			}
		}
		for _, l := range labelName.FindAllStringSubmatch(m[2], -1) {
			if l[1] != "le" && labels[name] != nil {
				labels[name][l[1]] = true
			}
		}
	}
	for name, f := range all {
		f.labels = strings.Join(slices.Sorted(maps.Keys(labels[name])), ", ")
		all[name] = f
	}
	return all
}

func TestTheMetricsOfThePageAreThoseThatAreServed(t *testing.T) {
	t.Parallel()
	r, address := withSite(t, fmt.Sprintf("data_dir = %q\n[order]\nembedded = true\n[shards.a]\nembedded = true\n[shards.b]\nembedded = true\n[routes]\n\"\" = \"a\"\n\"m\" = \"b\"\n[gateways.g]\nlisten = \"127.0.0.1:0\"\nendpoints = [%q]\n",
		t.TempDir(), ports.Of(t)))
	c := r.client()
	putAt(t, c, "a")
	w := c.Watch(t.Context(), "", clientv3.WithFromKey(), clientv3.WithRev(1))
	if resp := <-w; resp.Err() != nil || len(resp.Events) != 1 {
		t.Fatalf("%v", resp)
	}
	// What is counted behind an answer may be a moment later than the answer.
	serves(t, address,
		`sharder_rpc_requests_total{code="OK",rpc="KV/Put"} 1`, `sharder_rpc_streams_open{rpc="Watch/Watch"} 1`,
		`sharder_watch_watchers 1`, `sharder_watch_events_total 1`, `sharder_order_revision 2`,
		`sharder_shard_covered_revision{shard="a"} 3`, `sharder_shard_healthy{shard="[order]"} 1`, `sharder_door_inside 0`,
		`sharder_gateway_connections_total{gateway="g"} 0`,
		"# TYPE go_goroutines gauge", "# TYPE process_cpu_seconds_total counter",
	)
	code, scraped := fetch(address, "/metrics")
	if code != 200 {
		t.Fatalf("%d %s", code, scraped)
	}
	want, have := documented(t), served(scraped)
	single, site := withSite(t, alone(etcdtest.Start(t).Endpoint)) // where there is a cache
	putAt(t, single.client(), "a")
	_, cached := fetch(site, "/metrics")
	for name, f := range served(cached) {
		if strings.HasPrefix(name, "sharder_cache_") {
			have[name] = f
		}
	}
	for name, f := range have {
		if want[name] != f {
			t.Errorf("%s: the page has %+v, served is %+v", name, want[name], f)
		}
	}
	for name := range want {
		if _, ok := have[name]; !ok {
			t.Errorf("%s is on the page only", name)
		}
	}
	for _, name := range []string{"sharder_order_append_duration_seconds_count", "sharder_order_entries_replayed_total", `sharder_shard_calls_total{outcome="ok",shard="a"}`} {
		if !strings.Contains(scraped, name+" ") || strings.Contains(scraped, name+" 0\n") {
			t.Errorf("%s is not counted", name)
		}
	}
}

func TestGatewaysAloneHaveAnHTTPSide(t *testing.T) {
	t.Parallel()
	e := etcdtest.Start(t)
	address, listen := ports.Of(t), ports.Of(t)
	cfg, err := conf.Parse("test.toml", []byte(fmt.Sprintf("metrics = %q\n[gateways.g]\nlisten = %q\nendpoints = [%q]\n", address, listen, e.Endpoint)))
	if err != nil {
		t.Fatal(err)
	}
	gatewayRun(t, cfg)
	answers(t, address, "/readyz?verbose", 200, "[+]serving ok\nok\n")
	if err := put(etcdtest.Client(t, listen), "k"); err != nil {
		t.Error(err)
	}
	serves(t, address, `sharder_gateway_connections_open{gateway="g"} 1`, `sharder_gateway_endpoints{gateway="g",state="up"} 1`)
	answers(t, address, "/", 200, "/readyz\n")
	answers(t, address, "/status", 404, "not found")
}

func TestShapesWithoutAnOrderHaveNoMetricsOfOne(t *testing.T) {
	t.Parallel()
	r, address := withSite(t, external(etcdtest.Start(t).Endpoint, etcdtest.Start(t).Endpoint))
	putAt(t, r.client(), "a")
	answers(t, address, "/readyz", 200, "ok\n")
	_, scraped := fetch(address, "/metrics")
	for name := range served(scraped) {
		for _, part := range []string{"order", "batch", "transaction", "fence", "takeover", "covered", "pending", "shard_refused"} {
			if strings.Contains(name, part) {
				t.Errorf("%s is served without an order", name)
			}
		}
	}
}
