package grpcproxy_test

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"strings"
	"testing"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
)

// asked is what is answered over HTTP on the client port, with what differs between two
// clusters left out.
func (d *door) asked(ctx context.Context, method, path, body, token string) string {
	r, err := http.NewRequestWithContext(ctx, method, "http://"+d.addr+path, strings.NewReader(body))
	if err != nil {
		return err.Error()
	}
	if token != "" {
		r.Header.Set("Authorization", token)
	}
	c := http.Client{Timeout: soon, Transport: &http.Transport{DisableKeepAlives: true}}
	answer, err := c.Do(r)
	if err != nil {
		return err.Error()
	}
	defer answer.Body.Close()
	text, err := io.ReadAll(answer.Body)
	if err != nil {
		return err.Error()
	}
	var fields map[string]any
	if json.Unmarshal(text, &fields) == nil {
		delete(fields, "header")
		delete(fields, "token")
		return fmt.Sprintf("%d %v", answer.StatusCode, fields)
	}
	return fmt.Sprintf("%d %q", answer.StatusCode, text)
}

// settled tells whether the cluster has brought the version of its storage up to its own: it does
// so a moment after it has started.
func (d *door) settled() bool {
	_, text, err := get(d.cluster.Endpoint(0) + "/version")
	var v struct{ EtcdCluster, Storage string }
	return err == nil && json.Unmarshal([]byte(text), &v) == nil && v.Storage == v.EtcdCluster
}

// P04, and paths that grpc-proxy answers with 404: what etcd has on its client port beside gRPC.
func TestHTTPOnTheClientPortIsEtcds(t *testing.T) {
	probe{
		fault: "no version, no gateway, no livez and readyz; health fails once there are users",
		want: []string{
			`GET /health: 200 map[health:true reason:]`, `GET /livez: 200 "ok\n"`, `GET /readyz: 200 "ok\n"`,
			`POST /v3/kv/range {"key":"aw=="}: 200 map[count:1 kvs:[map[create_revision:2 key:aw== mod_revision:2 value:dg== version:1]]]`,
			`with users: GET /health: 200 map[health:true reason:]`,
			`with users: POST /v3/kv/range {"key":"aw=="}: 400 map[code:3 message:etcdserver: user name is empty]`,
		},
		run: func(ctx context.Context, d *door) error {
			if _, err := d.client().Put(ctx, "k", "v"); err != nil {
				return err
			}
			eventually(ctx, d.settled)
			ask := func(when, line, token string) {
				parts := strings.SplitN(line, " ", 3)
				d.say("%s%s: %s", when, line, d.asked(ctx, parts[0], parts[1], strings.Join(parts[2:], ""), token))
			}
			for _, line := range []string{
				"GET /health", "GET /livez", "GET /readyz", "GET /version", "POST /version", "GET /nothing",
				`POST /v3/kv/range {"key":"aw=="}`, `POST /v3/kv/put {"key":"bg==","value":"dg=="}`,
				`POST /v3/kv/range {"key":"aw==","revision":"1000"}`, `POST /v3/kv/range {"kee":1}`, `POST /v3/lease/grant {"ID":7,"TTL":60}`,
				`POST /v3/lease/grant {"ID":7,"TTL":60}`, `GET /v3/kv/range`, `POST /v3/nothing {}`, `POST /v3beta/kv/range {"key":"aw=="}`,
			} {
				ask("", line, "")
			}
			if err := d.withUsers(ctx); err != nil {
				return err
			}
			token, err := d.token(ctx, "ann")
			if err != nil {
				return err
			}
			ask("with users: ", "GET /health", "")
			ask("with users: ", `POST /v3/kv/range {"key":"aw=="}`, "")
			ask("as ann: ", `POST /v3/kv/range {"key":"aw=="}`, token)
			ask("as ann: ", `POST /v3/kv/range {"key":"eg=="}`, token)
			ask("with users: ", `POST /v3/auth/authenticate {"name":"ann","password":"x"}`, "")
			ask("with users: ", `POST /v3/auth/authenticate {"name":"ann","password":"ann"}`, "")
			return nil
		},
	}.check(t)
}

// P19: /metrics goes on when the member that etcd grpc-proxy had chosen for it dies: sharder's
// are its own. Requests go on as well.
func TestMetricsAndHealthSurviveAMember(t *testing.T) {
	t.Parallel()
	d := open(t, sharder, &probe{members: 3, etcd: quick})
	check := func(when string) {
		for _, path := range []string{"/metrics", "/livez"} {
			if code, text, err := get("http://" + d.addr + path); err != nil || code != http.StatusOK {
				t.Errorf("%s, %s: %d %v %.200s", when, path, code, err, text)
			}
		}
		for _, path := range []string{"/health", "/readyz"} { // which may meet an election
			var code int
			var text string
			if !eventually(t.Context(), func() bool { code, text, _ = get("http://" + d.addr + path); return code == http.StatusOK }) {
				t.Errorf("%s, %s: %d %.200s", when, path, code, text)
			}
		}
	}
	check("with all members")
	for i := range 3 {
		d.cluster.Kill(i)
		if !eventually(t.Context(), func() bool { _, err := d.kv().Put(t.Context(), &pb.PutRequest{Key: []byte("k")}); return err == nil }) {
			t.Fatalf("no writes without member %d", i)
		}
		check(fmt.Sprintf("without member %d", i))
		d.cluster.Start(i)
	}
}
