package main

import (
	"bufio"
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/gorilla/websocket"
	"github.com/sourcegraph/conc"

	"github.com/sharder/sharder/integration/cable"
	"github.com/sharder/sharder/integration/etcdtest"
	"github.com/sharder/sharder/stages/members"
	clientv3 "go.etcd.io/etcd/client/v3"
)

// post asks the gateway in JSON, and gives the answer's code and body.
func post(address, path, body string) (code int, answer map[string]any) {
	client := http.Client{Transport: &http.Transport{DisableKeepAlives: true}, Timeout: 30 * time.Second}
	resp, err := client.Post("http://"+address+path, "application/json", strings.NewReader(body))
	if err != nil {
		return 0, map[string]any{"error": err.Error()}
	}
	defer resp.Body.Close()
	text, err := io.ReadAll(resp.Body)
	if err == nil {
		err = json.Unmarshal(text, &answer)
	}
	if err != nil {
		return resp.StatusCode, map[string]any{"error": err.Error(), "text": string(text)}
	}
	return resp.StatusCode, answer
}

func TestTheClientPortAnswersHTTPBesideGRPC(t *testing.T) {
	t.Parallel()
	for name, toml := range map[string]string{
		"one shard":  fmt.Sprintf("[shards.a]\nendpoints = [%q]\n", etcdtest.Start(t).Endpoint),
		"two shards": external(etcdtest.Start(t).Endpoint, etcdtest.Start(t).Endpoint),
	} {
		r := start(t, toml)
		putAt(t, r.client(), "k")
		answers(t, r.endpoint, "/health", 200, `{"health":"true","reason":""}`)
		answers(t, r.endpoint, "/readyz", 200, "ok\n")
		answers(t, r.endpoint, "/livez", 200, "ok\n")
		answers(t, r.endpoint, "/metrics", 200, "sharder_door_inside 0\n")
		answers(t, r.endpoint, "/proxy/metrics", 200, "sharder_door_inside 0\n")
		answers(t, r.endpoint, "/proxy/health", 200, `{"health":"true","reason":""}`)
		answers(t, r.endpoint, "/debug/vars", 200, `"memstats"`)
		answers(t, r.endpoint, "/debug/pprof/", 404, "not found")
		answers(t, r.endpoint, "/status", 404, "not found")
		code, answer := post(r.endpoint, "/v3/kv/range", `{"key":"aw=="}`)
		if kvs, ok := answer["kvs"].([]any); code != 200 || !ok || len(kvs) != 1 {
			t.Errorf("%s: %d %v", name, code, answer)
		}
		if err := r.end(); err != nil {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// holdWatch opens a watch by HTTP that goes on until the test ends.
func holdWatch(t *testing.T, address string) {
	t.Helper()
	resp, err := http.Post("http://"+address+"/v3/watch", "application/json", strings.NewReader(`{"create_request":{"key":"aw=="}}`))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { resp.Body.Close() })
	if _, err := bufio.NewReader(resp.Body).ReadString('\n'); err != nil {
		t.Fatal(err)
	}
}

func TestProfilesAreServedWhereTheFileSaysSo(t *testing.T) {
	t.Parallel()
	r := oneShard(t, "[http]\npprof = true\ngateway = false")
	answers(t, r.endpoint, "/debug/pprof/", 200, "goroutine")
	answers(t, r.endpoint, "/debug/pprof/goroutine?debug=1", 200, "goroutine profile")
	code, answer := post(r.endpoint, "/v3/kv/range", `{"key":"aw=="}`)
	if code != 404 {
		t.Errorf("without a gateway: %d %v", code, answer)
	}
}

// postAll posts a body, and reads the answer though the server stops reading: it closes the connection then,
// and a client of net/http may see that before the answer.
func postAll(t *testing.T, address, path string, body io.Reader) (code int, text string) {
	t.Helper()
	req, err := http.NewRequestWithContext(t.Context(), http.MethodPost, "http://"+address+path, body)
	if err != nil {
		t.Fatal(err)
	}
	req.Header.Set("Content-Type", "application/json")
	c, err := net.Dial("tcp", address)
	if err != nil {
		t.Fatal(err)
	}
	var wg conc.WaitGroup
	defer wg.Wait()
	defer c.Close()
	_ = c.SetDeadline(time.Now().Add(30 * time.Second))
	wg.Go(func() { _ = req.Write(c) })
	resp, err := http.ReadResponse(bufio.NewReader(c), nil)
	if err != nil {
		t.Fatal(err)
	}
	read, _ := io.ReadAll(resp.Body)
	return resp.StatusCode, string(read)
}

// A request that never ends becomes an error, not memory.
func TestARequestInJSONHasABound(t *testing.T) {
	t.Parallel()
	r := oneShard(t, "max_request_bytes = \"64KiB\"") // and half a MiB more, eight times
	endless := func(n int) io.Reader {
		return io.MultiReader(strings.NewReader(`{"key":"`), bytes.NewReader(bytes.Repeat([]byte("A"), n)), strings.NewReader(`"}`))
	}
	for n, want := range map[int]int{1 << 20: 429, 4 << 20: 429, 6 << 20: 400} {
		for _, path := range []string{"/v3/kv/put", "/v3/kv/txn"} {
			code, text := postAll(t, r.endpoint, path, endless(n))
			if path == "/v3/kv/put" && code != want || want == 400 && !strings.Contains(text, "the request is too large") {
				t.Errorf("%s of %d bytes: %d %s, want %d", path, n, code, text, want)
			}
		}
	}
	conn, _, err := websocket.DefaultDialer.Dial("ws://"+r.endpoint+"/v3/watch", nil)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	_ = conn.WriteMessage(websocket.TextMessage, bytes.Repeat([]byte(" "), 6<<20))
	_ = conn.SetReadDeadline(time.Now().Add(30 * time.Second))
	if _, text, err := conn.ReadMessage(); !websocket.IsCloseError(err, websocket.CloseMessageTooBig) {
		t.Errorf("%q %v", text, err)
	}
}

// A client that reads nothing holds no drain up: not one in chunks, not one with a websocket.
func TestTheEndDoesNotWaitForWhoDoesNotRead(t *testing.T) {
	t.Parallel()
	r := oneShard(t, "drain_timeout = \"1s\"")
	holdWatch(t, r.endpoint)
	conn, _, err := websocket.DefaultDialer.Dial("ws://"+r.endpoint+"/v3/watch", nil)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	if err := conn.WriteMessage(websocket.TextMessage, []byte(`{"create_request":{"key":"aw=="}}`)); err != nil {
		t.Fatal(err)
	}
	if _, _, err := conn.ReadMessage(); err != nil {
		t.Fatal(err)
	}
	c := r.client()
	for range 60 { // more than fits into the buffers of a connection
		if _, err := c.Put(t.Context(), "k", strings.Repeat("x", 1<<20)); err != nil {
			t.Fatal(err)
		}
	}
	began := time.Now()
	if err := r.end(); err != nil {
		t.Error(err)
	}
	if d := time.Since(began); d > time.Minute { // held up, it would be for as long as this test runs
		t.Errorf("it took %v", d)
	}
}

// While a sharder takes its registration back, which comes first, clients still get an answer.
func TestADrainListensUntilItHasLeftTheOthers(t *testing.T) {
	t.Parallel()
	e := etcdtest.Start(t)
	wire := cable.New(t, e.Endpoint)
	r := startAdvertised(t, fmt.Sprintf("drain_timeout = \"1s\"\n[registration]\nprefix = \"sharders\"\nttl = \"5s\"\n[shards.a]\nendpoints = [%q]\n", wire.Addr))
	within(t, 30*time.Second, func() error {
		g, err := e.Client().Get(t.Context(), "sharders", clientv3.WithPrefix())
		if err == nil && g.Count == 0 {
			err = errors.New("it is not registered")
		}
		return err
	})
	wire.Hold() // so that leaving takes as long as it may
	began := time.Now()
	r.stop()
	code, text := fetch(r.endpoint, "/readyz")
	if late := time.Since(began) > members.LeaveTimeout; !late && (code != 503 || !strings.Contains(text, "it is draining")) {
		t.Errorf("while it leaves: %d %s", code, text)
	}
	if err := r.end(); err != nil {
		t.Error(err)
	}
	if code, text := fetch(r.endpoint, "/readyz"); code != 0 {
		t.Errorf("after the end: %d %s", code, text)
	}
}
