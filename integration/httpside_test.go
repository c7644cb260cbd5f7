package integration

import (
	"bytes"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/sharder/sharder/integration/certs"
	"github.com/sharder/sharder/integration/etcdproc"
	"github.com/sharder/sharder/integration/harness"
	"github.com/sharder/sharder/integration/ports"
)

// httpCall is a request by HTTP; "token" in a body or a header stands for the newest token that
// the server has given out.
type httpCall struct{ method, path, body, authorization string }

// httpAnswer is what a server says to one: of a body in JSON, what it means.
type httpAnswer struct {
	code int
	kind string
	body any
}

// httpServer is a server that is asked by HTTP as curl would.
type httpServer struct {
	t     testing.TB
	base  string
	token string
}

func (s *httpServer) ask(c httpCall) httpAnswer {
	s.t.Helper()
	r, err := http.NewRequestWithContext(s.t.Context(), c.method, s.base+c.path, strings.NewReader(c.body))
	if err != nil {
		s.t.Fatal(err)
	}
	if c.authorization != "" {
		r.Header.Set("Authorization", strings.ReplaceAll(c.authorization, "token", s.token))
	}
	if c.body != "" {
		r.Header.Set("Content-Type", "application/x-www-form-urlencoded") // as curl -d
	}
	resp, err := (&http.Client{Transport: &http.Transport{DisableKeepAlives: true}, Timeout: soon}).Do(r)
	if err != nil {
		s.t.Fatalf("%s %s: %v", c.method, c.path, err)
	}
	defer resp.Body.Close()
	text, err := io.ReadAll(resp.Body)
	if err != nil {
		s.t.Fatalf("%s %s: %v", c.method, c.path, err)
	}
	a := httpAnswer{code: resp.StatusCode, kind: resp.Header.Get("Content-Type"), body: string(text)}
	d := json.NewDecoder(bytes.NewReader(text))
	d.UseNumber()
	var many []any
	for {
		var one any
		if err := d.Decode(&one); err == io.EOF && many != nil {
			a.body = s.stable(many)
			break
		} else if err != nil {
			break // no JSON, or not all of it
		}
		many = append(many, one)
	}
	return a
}

// stable is an answer without what differs between two clusters. A token is kept for later.
func (s *httpServer) stable(v any) any {
	switch v := v.(type) {
	case []any:
		for i := range v {
			v[i] = s.stable(v[i])
		}
	case map[string]any:
		for key := range v {
			switch key {
			case "cluster_id", "member_id", "raft_term", "raftTerm", "raftIndex", "raftAppliedIndex", "leader", "ID", "peerURLs", "clientURLs", "name",
				"dbSize", "dbSizeInUse", "hash", "authRevision":
				v[key] = "…"
			case "token":
				s.token, v[key] = v[key].(string), "…"
			case "message": // protobuf has another kind of space in some programs
				v[key] = strings.ReplaceAll(fmt.Sprint(v[key]), "\u00a0", " ")
			default:
				v[key] = s.stable(v[key])
			}
		}
	}
	return v
}

// b64 is text as the JSON form of the API has bytes.
func b64(text string) string { return base64.StdEncoding.EncodeToString([]byte(text)) }

func post(path, format string, args ...any) httpCall {
	return httpCall{method: "POST", path: path, body: fmt.Sprintf(format, args...)}
}

func get(path string) httpCall { return httpCall{method: "GET", path: path} }

// kvCalls go through every RPC of KV and Lease, and through what can be wrong with a request.
func kvCalls() []httpCall {
	return []httpCall{
		post("/v3/kv/range", `{"key":%q}`, b64("a")),
		post("/v3/kv/put", `{"key":%q,"value":%q}`, b64("a"), b64("1")),
		post("/v3/kv/put", `{"key":%q,"value":%q,"prev_kv":true}`, b64("a"), b64("2")),
		post("/v3/kv/put", `{"key":%q,"value":%q}`, b64("a/b"), b64("3")),
		post("/v3/kv/range", `{"key":%q,"range_end":%q,"sort_target":"VALUE","sort_order":"DESCEND"}`, b64("a"), b64("b")),
		post("/v3/kv/range", `{"key":%q,"range_end":%q,"count_only":true}`, b64("a"), b64("b")),
		post("/v3/kv/range", `{"key":%q,"range_end":%q,"limit":"1"}`, b64("a"), b64("b")),
		post("/v3/kv/range", `{"key":%q,"revision":2}`, b64("a")),
		post("/v3/kv/range", `{"key":%q,"revision":"1000"}`, b64("a")),
		post("/v3beta/kv/range", `{"key":%q}`, b64("a")),
		post("/v3/kv/txn", `{"compare":[{"result":"EQUAL","target":"VALUE","key":%q,"value":%q}],"success":[{"requestPut":{"key":%q,"value":%q}},{"request_range":{"key":%q}}],"failure":[{"requestDeleteRange":{"key":%q}}]}`,
			b64("a"), b64("2"), b64("a"), b64("4"), b64("a"), b64("a")),
		post("/v3/kv/txn", `{"success":[{"requestPut":{"key":%q}},{"requestPut":{"key":%q}}]}`, b64("a"), b64("a")),
		post("/v3/kv/txn", `{}`),
		post("/v3/kv/deleterange", `{"key":%q,"range_end":%q,"prev_kv":true}`, b64("a/"), b64("a0")),
		post("/v3/kv/deleterange", `{"key":%q}`, b64("none")),
		post("/v3/lease/grant", `{"TTL":600,"ID":77}`),
		post("/v3/lease/grant", `{"TTL":600,"ID":77}`),
		post("/v3/lease/grant", `{"TTL":"1e12"}`),
		post("/v3/kv/put", `{"key":%q,"value":%q,"lease":77}`, b64("a/l"), b64("5")),
		post("/v3/kv/put", `{"key":%q,"value":%q,"lease":78}`, b64("a/l"), b64("5")),
		post("/v3/lease/keepalive", `{"ID":77}`),
		post("/v3/lease/keepalive", `{"ID":77}{"ID":78}`),
		post("/v3/lease/keepalive", `{"ID":`),
		post("/v3/lease/keepalive", ``),
		post("/v3/lease/leases", `{}`),
		post("/v3/kv/lease/leases", `{}`),
		post("/v3/lease/revoke", `{"ID":77}`),
		post("/v3/kv/lease/revoke", `{"ID":"77"}`),
		post("/v3/lease/timetolive", `{"ID":77}`),
		post("/v3/kv/put", `{"value":%q}`, b64("1")),
		post("/v3/kv/put", `{"key":"no base64!"}`),
		post("/v3/kv/put", `{"key":`),
		post("/v3/kv/put", `[]`),
		post("/v3/kv/put", ``),
		post("/v3/kv/put", `{"key":%q,"unknown":{"a":[1]}}`, b64("a")),
		post("/v3/kv/put", `{"key":%q,"lease":"seven"}`, b64("a")),
		post("/v3/kv/range", `{"key":%q} and more`, b64("a")),
		post("/v3/kv/range", `{"key":%q,"sort_target":17}`, b64("a")),
		post("/v3/kv/put", `{"key":%q,"value":%q}`, b64("a/large"), b64(strings.Repeat("x", 1<<20))),
		post("/v3/kv/put", `{"key":%q,"value":%q}`, b64("a/large"), b64(strings.Repeat("x", 1536<<10+1))),
		post("/v3/kv/put", `{"key":%q,"value":%q}`, b64("a/large"), b64(strings.Repeat("x", 3<<20))),
		post("/v3/kv/compaction", `{"revision":4}`),
		post("/v3/kv/compaction", `{"revision":4}`),
		post("/v3/kv/compaction", `{"revision":"4000"}`),
		post("/v3/kv/range", `{"key":%q,"revision":2}`, b64("a")),
		get("/v3/kv/range"), get("/v3/"), get("/v3/none"), post("/v3/none", `{}`), post("/v3alpha/kv/range", `{}`), post("/v3/kv/", `{}`),
		{method: "PUT", path: "/v3/kv/put", body: `{}`}, {method: "DELETE", path: "/v3/kv/put"}, {method: "HEAD", path: "/v3/kv/range"},
		post("/v3/kv/../kv/range", `{"key":%q}`, b64("a")),
	}
}

// otherCalls go to the services that a single shard answers itself, and to etcd's own pages.
func otherCalls() []httpCall {
	return []httpCall{
		post("/v3/maintenance/alarm", `{}`),
		post("/v3/maintenance/alarm", `{"action":"ACTIVATE","alarm":"NOSPACE","memberID":1}`),
		get("/health"), get("/health?exclude=NOSPACE"), get("/health?exclude=CORRUPT"), get("/health?serializable=true"),
		post("/v3/kv/put", `{"key":%q}`, b64("a")),
		post("/v3/maintenance/alarm", `{"action":"DEACTIVATE","alarm":"NOSPACE","memberID":1}`),
		get("/health"), get("/health?serializable=true&exclude=NOSPACE"), post("/health", ``),
		get("/livez"), get("/livez?verbose&exclude=serializable_read"), post("/livez", ``), get("/readyz"), get("/readyz?exclude=none"), {method: "PUT", path: "/readyz"},
		get("/version"), post("/version", ``), get("/none"), get("/"),
		post("/v3/maintenance/status", `{}`),
		post("/v3/maintenance/hash", `{}`),
		post("/v3/maintenance/defragment", `{}`),
		post("/v3/cluster/member/list", `{}`),
		post("/v3/cluster/member/remove", `{"ID":"1"}`),
		post("/v3/auth/status", `{}`),
		post("/v3/auth/authenticate", `{"name":"root","password":"pw"}`),
		post("/v3/lock/lock", `{"name":%q,"lease":79}`, b64("l")),
		post("/v3/election/leader", `{"name":%q}`, b64("e")),
	}
}

// authCalls switch authentication on and ask as different users.
func authCalls() []httpCall {
	as := func(c httpCall, authorization string) httpCall { c.authorization = authorization; return c }
	read := post("/v3/kv/range", `{"key":%q}`, b64("a"))
	return []httpCall{
		post("/v3/auth/user/add", `{"name":"root","password":"pw"}`),
		post("/v3/auth/user/grant", `{"user":"root","role":"root"}`),
		post("/v3/auth/user/add", `{"name":"reader","password":"pw2"}`),
		post("/v3/auth/role/add", `{"name":"read"}`),
		post("/v3/auth/role/grant", `{"name":"read","perm":{"permType":"READ","key":%q}}`, b64("a")),
		post("/v3/auth/user/grant", `{"user":"reader","role":"read"}`),
		post("/v3/auth/enable", `{}`),
		read, as(read, "token"), as(read, "Bearer nonsense"),
		post("/v3/auth/authenticate", `{"name":"reader","password":"wrong"}`),
		post("/v3/auth/authenticate", `{"name":"reader","password":"pw2"}`),
		as(read, "token"),
		as(post("/v3/kv/range", `{"key":%q}`, b64("b")), "token"),
		as(post("/v3/kv/put", `{"key":%q}`, b64("a")), "token"),
		as(post("/v3/lease/leases", `{}`), "token"),
		get("/health"), get("/health?serializable=true"), get("/livez"), get("/readyz"), get("/version"),
		post("/v3/auth/authenticate", `{"name":"root","password":"pw"}`),
		as(post("/v3/kv/put", `{"key":%q}`, b64("b")), "token"),
		as(post("/v3/lease/grant", `{"TTL":600,"ID":80}`), "token"),
		as(post("/v3/lease/keepalive", `{"ID":80}`), "token"),
		as(post("/v3/auth/disable", `{}`), "token"),
		read,
	}
}

// settledEtcd is an etcd that has brought the version of its storage up to its own, and of whose answers
// no part is still to change: it does so a moment after it has started, now and then after some seconds.
func settledEtcd(t *testing.T) *etcdproc.Cluster {
	t.Helper()
	c := etcdproc.Start(t, 1)
	s := &httpServer{t: t, base: c.Endpoint(0)}
	waitUntil(t, "etcd knows its versions", func() bool {
		v, ok := s.ask(get("/version")).body.([]any)[0].(map[string]any)
		return ok && v["storage"] == v["etcdcluster"]
	})
	return c
}

// atEtcd and at are a server of each kind.
func atEtcd(t *testing.T) *httpServer {
	return &httpServer{t: t, base: settledEtcd(t).Endpoint(0)}
}

func at(t *testing.T, c harness.Conf) *httpServer {
	return &httpServer{t: t, base: "http://" + harness.Start(t, c).Endpoint}
}

// asEtcd asks two servers the same, one after the other, and compares what they say. What
// sharder knows of its shards' health may be a second old.
func asEtcd(t *testing.T, reference, sharder *httpServer, calls []httpCall) {
	t.Helper()
	for i, c := range calls {
		want, have := reference.ask(c), sharder.ask(c)
		for began := time.Now(); strings.HasPrefix(c.path, "/health") && !reflect.DeepEqual(have, want) && time.Since(began) < soon; {
			time.Sleep(100 * time.Millisecond)
			have = sharder.ask(c)
		}
		if !reflect.DeepEqual(have, want) {
			t.Errorf("%d: %s %s %.200s\nhave %d %q %.600v\nwant %d %q %.600v", i, c.method, c.path, c.body,
				have.code, have.kind, have.body, want.code, want.kind, want.body)
		}
	}
}

// Before one etcd sharder answers HTTP as that does: codes, kinds of content and bodies.
func TestHTTPIsAnsweredAsByEtcd(t *testing.T) {
	t.Parallel()
	c := harness.Single(settledEtcd(t).Endpoints()...)
	c.Top = []string{`members = "shard"`}
	asEtcd(t, atEtcd(t), at(t, c), slices.Concat(kvCalls(), otherCalls(), authCalls()))
}

// With one order the same is true of everything about keys and leases.
func TestHTTPUnderOneOrderIsAnsweredAsByOneEtcd(t *testing.T) {
	t.Parallel()
	asEtcd(t, atEtcd(t), at(t, harness.Three().Ordered()), kvCalls())
}

// curl runs the real one; the answers above are those of Go's client.
func curl(t *testing.T, args ...string) string {
	t.Helper()
	path, err := exec.LookPath("curl")
	if err != nil {
		t.Skip("there is no curl on this machine")
	}
	out, err := exec.CommandContext(t.Context(), path, append([]string{"-sS", "--max-time", "60"}, args...)...).CombinedOutput()
	if err != nil {
		t.Errorf("curl %q: %v: %s", args, err, out)
	}
	return string(out)
}

// What the documentation of etcd does with curl works in the clear, over TLS by HTTP/2 and by
// HTTP/1.1, and on a socket.
func TestCurlIsServedInEveryWay(t *testing.T) {
	t.Parallel()
	ca := certs.New(t, "ours")
	cert, key := ca.Issue("server")
	dir := t.TempDir()
	plain, secure, file := ports.Of(t), ports.Of(t), filepath.Join(dir, "sharder.toml")
	if err := os.WriteFile(file, fmt.Appendf(nil, "listen = [%q, %q, %q]\n[tls]\ncert = %q\nkey = %q\n[shards.a]\nendpoints = [%q]\n",
		"http://"+plain, "https://"+secure, "unix://"+dir+"/s", cert, key, etcdproc.Start(t, 1).Endpoint(0)), 0o600); err != nil {
		t.Fatal(err)
	}
	s := harness.StartFile(t, file, plain)
	for i, way := range [][]string{
		{"http://" + plain},
		{"https://" + secure, "--cacert", ca.File},
		{"https://" + secure, "--cacert", ca.File, "--http1.1"},
		{"http://localhost", "--unix-socket", dir + "/s"},
	} {
		base, more := way[0], way[1:]
		ask := func(path string, args ...string) string {
			t.Helper()
			return curl(t, append(append(args, more...), base+path)...)
		}
		if out := ask("/v3/kv/put", "-L", "-X", "POST", "-d", fmt.Sprintf(`{"key": %q, "value": %q}`, b64("foo"), b64("bar"))); !strings.Contains(out, `"revision":"`) {
			t.Errorf("%q: put: %s", way, out)
		}
		if out := ask("/v3/kv/range", "-d", fmt.Sprintf(`{"key":%q}`, b64("foo"))); !strings.Contains(out, fmt.Sprintf(`"version":"%d"`, i+1)) {
			t.Errorf("%q: range: %s", way, out)
		}
		if out := ask("/health"); out != `{"health":"true","reason":""}` {
			t.Errorf("%q: health: %s", way, out)
		}
		if out := ask("/version"); !strings.HasPrefix(out, `{"etcdserver":"`) {
			t.Errorf("%q: version: %s", way, out)
		}
		if out := ask("/v3/none", "-d", "{}", "-w", "%{http_code}"); !strings.HasSuffix(out, "404") {
			t.Errorf("%q: none: %s", way, out)
		}
	}
	s.Stop()
	if _, err := os.Lstat(dir + "/s"); !os.IsNotExist(err) {
		t.Errorf("the socket is still there: %v", err)
	}
}
