//go:build unix

package etcdproc_test

import (
	"context"
	"testing"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"

	"github.com/sharder/sharder/integration/etcdproc"
	"github.com/sharder/sharder/integration/leaks"
)

func TestMain(m *testing.M) { leaks.Main(m) }

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
	c.Despite(func() error {
		_, err := client.Put(within(t, 30*time.Second), "k", "v")
		return err
	})
	for i := range c.Len() {
		c.Kill(i)
	}
	for i := range c.Len() {
		c.Launch(i)
	}
	c.Leader()
	got, err := client.Get(within(t, 30*time.Second), "k")
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
	if _, err := client.Get(within(t, 30*time.Second), "k"); err != nil {
		t.Fatal(err)
	}
}

func TestElectionsAreCounted(t *testing.T) {
	c := etcdproc.Start(t, 3)
	lead := c.Leader()
	before, others := c.Elections(), c.Elections(lead)
	if before < 3 || others < 2 || others >= before {
		t.Fatalf("%d, and %d without the leader; each has seen one", before, others)
	}
	c.Pause(lead)
	for end := time.Now().Add(30 * time.Second); c.Elections(lead) < others+2; time.Sleep(50 * time.Millisecond) {
		if time.Now().After(end) {
			t.Fatal("the others have another leader, and it is not counted")
		}
	}
}

func TestErrorsOfElectionsAreTold(t *testing.T) {
	for err, want := range map[error]bool{
		rpctypes.ErrGRPCLeaderChanged: true, rpctypes.ErrLeaderChanged: true, rpctypes.ErrGRPCTimeout: true, rpctypes.ErrNoLeader: true,
		rpctypes.ErrGRPCNotLeader: false, rpctypes.ErrGRPCInvalidAuthToken: false, context.DeadlineExceeded: false,
		status.Error(codes.Unavailable, "sharder: shard a: no member answers"): false, status.Error(codes.Unavailable, "error reading from server: EOF"): false,
	} {
		if etcdproc.ElectionError(err) != want {
			t.Errorf("%v: want %v", err, want)
		}
	}
	if etcdproc.ElectionError(nil) {
		t.Error("nothing is one")
	}
}
