package integration

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"reflect"
	"strings"
	"testing"
	"time"

	"github.com/gorilla/websocket"

	"github.com/sharder/sharder/integration/etcdproc"
	"github.com/sharder/sharder/integration/harness"
)

// chunks asks for a stream as curl -N does, and gives the answers as they come.
func (s *httpServer) chunks(ctx context.Context, c httpCall) func() any {
	s.t.Helper()
	r, err := http.NewRequestWithContext(ctx, c.method, s.base+c.path, strings.NewReader(c.body))
	if err != nil {
		s.t.Fatal(err)
	}
	if c.authorization != "" {
		r.Header.Set("Authorization", strings.ReplaceAll(c.authorization, "token", s.token))
	}
	resp, err := http.DefaultClient.Do(r)
	if err != nil {
		s.t.Fatalf("%s: %v", c.path, err)
	}
	s.t.Cleanup(func() { resp.Body.Close() })
	d := json.NewDecoder(resp.Body)
	d.UseNumber()
	return func() any {
		s.t.Helper()
		var one any
		if err := d.Decode(&one); err != nil {
			s.t.Errorf("%s: %v", c.path, err)
		}
		return s.stable(one)
	}
}

// websocket opens one as a browser does; with a token it says whose it is.
func (s *httpServer) websocket(path, token string) *websocket.Conn {
	s.t.Helper()
	d := websocket.Dialer{HandshakeTimeout: soon}
	if token != "" {
		d.Subprotocols = []string{"Bearer", token}
	}
	conn, resp, err := d.Dial("ws"+strings.TrimPrefix(s.base, "http")+path, nil)
	if err != nil {
		s.t.Fatal(err)
	}
	if have := resp.Header.Get("Sec-Websocket-Protocol"); (have == "Bearer") != (token != "") {
		s.t.Errorf("the protocol is %q", have)
	}
	s.t.Cleanup(func() { conn.Close() })
	_ = conn.SetReadDeadline(time.Now().Add(2 * soon))
	return conn
}

// message gives the next one.
func (s *httpServer) message(conn *websocket.Conn) any {
	s.t.Helper()
	var one any
	_, text, err := conn.ReadMessage()
	if err == nil {
		d := json.NewDecoder(strings.NewReader(string(text)))
		d.UseNumber()
		err = d.Decode(&one)
	}
	if err != nil {
		s.t.Errorf("websocket: %v", err)
	}
	return s.stable(one)
}

// watchByChunks watches a key while it is written, and one at a revision that is gone.
func watchByChunks(s *httpServer, keys ...string) (all []any) {
	ctx, cancel := context.WithCancel(s.t.Context())
	defer cancel()
	next := s.chunks(ctx, post("/v3/watch", `{"create_request":{"key":%q,"range_end":"AA==","prev_kv":true}}`, b64("a")))
	all = append(all, next())
	for i := range 3 {
		for _, k := range keys {
			all = append(all, s.ask(post("/v3/kv/put", `{"key":%q,"value":%q}`, b64(k), b64(fmt.Sprint(i)))), next())
		}
	}
	all = append(all, s.ask(post("/v3/kv/deleterange", `{"key":%q}`, b64(keys[0]))), next())
	all = append(all, s.ask(post("/v3/kv/compaction", `{"revision":4,"physical":true}`)))
	gone := s.chunks(ctx, post("/v3/watch", `{"create_request":{"key":%q,"start_revision":2}}`, b64("a")))
	return append(all, gone(), gone())
}

// watchByWebsocket has two watches on one stream, one of which is cancelled, and asks for
// progress.
func watchByWebsocket(s *httpServer, token string, put func(key, value string) any) (all []any) {
	conn := s.websocket("/v3/watch", token)
	say := func(format string, args ...any) {
		s.t.Helper()
		if err := conn.WriteMessage(websocket.TextMessage, fmt.Appendf(nil, format, args...)); err != nil {
			s.t.Error(err)
		}
	}
	say(`{"create_request":{"key":%q,"watch_id":7}}`, b64("a"))
	all = append(all, s.message(conn))
	say("{\"create_request\":\n{\"key\":%q}}", b64("z")) // over two lines
	all = append(all, s.message(conn))
	for _, k := range []string{"a", "z"} {
		all = append(all, put(k, strings.Repeat("v", 100_000)), s.message(conn))
	}
	say(`{"cancel_request":{"watch_id":7}}`)
	all = append(all, s.message(conn))
	say(`{"progress_request":{}}`)
	all = append(all, s.message(conn))
	all = append(all, put("a", "not seen"), put("z", "seen"), s.message(conn))
	if err := conn.WriteMessage(websocket.CloseMessage, websocket.FormatCloseMessage(websocket.CloseNormalClosure, "")); err != nil {
		s.t.Error(err)
	}
	return all
}

// keepAliveByWebsocket keeps a lease alive that is there, and one that is not.
func keepAliveByWebsocket(s *httpServer) (all []any) {
	all = append(all, s.ask(post("/v3/lease/grant", `{"TTL":600,"ID":70}`)))
	conn := s.websocket("/v3/lease/keepalive", "")
	for _, id := range []int{70, 71, 70} {
		if err := conn.WriteJSON(map[string]int{"ID": id}); err != nil {
			s.t.Error(err)
		}
		all = append(all, s.message(conn))
	}
	return all
}

// streams is everything that can be seen of the streams of the gateway.
func streams(s *httpServer) (all []any) {
	all = append(all, watchByChunks(s, "a", "z")...)
	all = append(all, watchByWebsocket(s, "", func(key, value string) any {
		return s.ask(post("/v3/kv/put", `{"key":%q,"value":%q}`, b64(key), b64(value)))
	})...)
	return append(all, keepAliveByWebsocket(s)...)
}

func compare(t *testing.T, want, have []any) {
	t.Helper()
	for i := range max(len(want), len(have)) {
		if i >= len(want) || i >= len(have) || !reflect.DeepEqual(want[i], have[i]) {
			t.Fatalf("%d:\nhave %.1000v\nwant %.1000v", i, have[min(i, len(have)):], want[min(i, len(want)):])
		}
	}
}

// Watches and keep-alives over HTTP, in chunks and over websockets, say what they say at etcd.
func TestStreamsOverHTTPAreThoseOfEtcd(t *testing.T) {
	t.Parallel()
	want := streams(atEtcd(t))
	compare(t, want, streams(at(t, harness.Single(etcdproc.Start(t, 1).Endpoints()...))))
	compare(t, want, streams(at(t, harness.Three().Ordered())))
}

// A websocket is whose token it has; without one it is nobody's.
func TestAWebsocketSaysWhoseItIs(t *testing.T) {
	t.Parallel()
	root := func(s *httpServer) (all []any) {
		for _, c := range authCalls()[:7] {
			all = append(all, s.ask(c))
		}
		s.ask(post("/v3/auth/authenticate", `{"name":"root","password":"pw"}`))
		put := func(key, value string) any {
			c := post("/v3/kv/put", `{"key":%q,"value":%q}`, b64(key), b64(value))
			c.authorization = "token"
			return s.ask(c)
		}
		conn := s.websocket("/v3/watch", "")
		_ = conn.WriteMessage(websocket.TextMessage, []byte(`{"create_request":{"key":"YQ=="}}`))
		all = append(all, s.message(conn))
		if text := fmt.Sprint(all[len(all)-1]); !strings.Contains(text, "canceled:true") {
			t.Errorf("nobody's watch: %s", text)
		}
		return append(all, watchByWebsocket(s, s.token, put)...)
	}
	compare(t, root(atEtcd(t)), root(at(t, harness.Single(etcdproc.Start(t, 1).Endpoints()...))))
}

// A stream that is asked for by curl goes on until sharder drains, and ends then.
func TestStreamsOverHTTPEndWhenSharderDrains(t *testing.T) {
	t.Parallel()
	c := harness.Single()
	c.Top = []string{`drain_timeout = "10m"`} // which would end them, too
	h := harness.Start(t, c)
	s := &httpServer{t: t, base: "http://" + h.Endpoint}
	r, err := http.Post(s.base+"/v3/watch", "application/json", strings.NewReader(`{"create_request":{"key":"YQ=="}}`))
	if err != nil {
		t.Fatal(err)
	}
	defer r.Body.Close()
	conn := s.websocket("/v3/watch", "")
	if err := conn.WriteMessage(websocket.TextMessage, []byte(`{"create_request":{"key":"YQ=="}}`)); err != nil {
		t.Fatal(err)
	}
	s.message(conn)
	h.Stop() // fails unless it drains
	text, err := io.ReadAll(r.Body)
	if !strings.Contains(string(text), `"created":true`) || !strings.Contains(string(text), `"error"`) || err != nil {
		t.Errorf("%q %v", text, err)
	}
	_, text, err = conn.ReadMessage()
	if !strings.Contains(string(text), `"error"`) || err != nil {
		t.Errorf("%q %v", text, err)
	}
	if _, text, err = conn.ReadMessage(); !websocket.IsCloseError(err, websocket.CloseNormalClosure) {
		t.Errorf("%q %v", text, err)
	}
}
