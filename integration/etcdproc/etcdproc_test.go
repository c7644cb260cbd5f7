//go:build unix

package etcdproc_test

import (
	"context"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/sharder/sharder/integration/etcdproc"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// within gives a context for one step of a test.
func within(t *testing.T, d time.Duration) context.Context {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), d)
	t.Cleanup(cancel)
	return ctx
}

func TestAClusterKeepsItsDataOverTheDeathOfEveryMember(t *testing.T) {
	c := etcdproc.Start(t, 3)
	client := c.Client()
	if _, err := client.Put(within(t, 10*time.Second), "k", "v"); err != nil {
		t.Fatal(err)
	}
	for i := range c.Len() {
		c.Kill(i)
	}
	for i := range c.Len() {
		c.Launch(i)
	}
	c.Leader()
	got, err := client.Get(within(t, 10*time.Second), "k")
	if err != nil || len(got.Kvs) != 1 || string(got.Kvs[0].Value) != "v" {
		t.Fatalf("after the restart: %v, %v", got, err)
	}
}

func TestAFrozenMemberIsSilentAndComesBack(t *testing.T) {
	c := etcdproc.Start(t, 1)
	client := c.Client()
	c.Pause(0)
	if _, err := client.Get(within(t, 300*time.Millisecond), "k"); err == nil {
		t.Fatal("a frozen etcd answered")
	}
	c.Resume(0)
	if _, err := client.Get(within(t, 10*time.Second), "k"); err != nil {
		t.Fatal(err)
	}
}
