package etcdtest_test

import (
	"testing"

	"github.com/sharder/sharder/integration/etcdtest"
)

func TestRestartKeepsPortAndData(t *testing.T) {
	e := etcdtest.Start(t)
	c := e.Client()
	if _, err := c.Put(t.Context(), "k", "v"); err != nil {
		t.Fatal(err)
	}
	before := e.Endpoint
	e.Restart()
	if got := e.Server().Clients[0].Addr().String(); got != before {
		t.Fatalf("restarted on %s, was on %s", got, before)
	}
	r, err := c.Get(t.Context(), "k")
	if err != nil || len(r.Kvs) != 1 {
		t.Fatalf("got %v, %v", r, err)
	}
}
