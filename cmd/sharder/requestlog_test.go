package main

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/sharder/sharder/integration/etcdtest"
)

func TestTheRequestLogHasEveryRequestAndNothingOfWhatItIsAbout(t *testing.T) {
	t.Parallel()
	etcd := etcdtest.Start(t)
	r := start(t, fmt.Sprintf("[grpc]\nlog_requests = true\n[shards.a]\nendpoints = [%q]\n", etcd.Endpoint))
	c := r.client()
	if _, err := c.Put(t.Context(), "secretkey", "secretvalue"); err != nil {
		t.Fatal(err)
	}
	if _, err := c.Get(t.Context(), "secretkey"); err != nil {
		t.Fatal(err)
	}
	if _, err := c.Authenticate(t.Context(), "secretuser", "secretpassword"); err == nil {
		t.Fatal("there are no users, and one came in")
	}
	within(t, 30*time.Second, func() error {
		text := r.log.String()
		for _, want := range []string{
			"msg=request rpc=/etcdserverpb.KV/Put client=127.0.0.1:", "rpc=/etcdserverpb.KV/Range", "code=OK",
			"rpc=/etcdserverpb.Auth/Authenticate", "code=FailedPrecondition",
		} {
			if !strings.Contains(text, want) {
				return fmt.Errorf("%q is not in\n%s", want, text)
			}
		}
		return nil
	})
	if text := r.log.String(); strings.Contains(text, "secret") {
		t.Errorf("it tells secrets:\n%s", text)
	}
}
