package main

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"testing"
	"time"

	"go.uber.org/zap"

	"github.com/sharder/sharder/integration/etcdtest"
	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"
	clientv3 "go.etcd.io/etcd/client/v3"
)

// One shard's clients answer for themselves; sharder's user is for what sharder asks.
func TestShardersUserIsNotLentToTheClientsOfOneShard(t *testing.T) {
	t.Parallel()
	e := etcdtest.Start(t, cheap)
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	enableAuth(t, e.Client())
	password := filepath.Join(t.TempDir(), "password")
	if err := os.WriteFile(password, []byte("pw\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	r, operators := withSite(t, fmt.Sprintf("[shards.a]\nendpoints = [%q]\nusername = \"root\"\npassword_file = %q\n", e.Endpoint, password))
	nobody := r.client()
	within(t, 30*time.Second, func() error {
		if err := put(nobody, "k"); err != rpctypes.ErrUserEmpty {
			return fmt.Errorf("a put of nobody's: %v", err)
		}
		return nil
	})
	if _, err := nobody.Status(ctx, r.endpoint); err != rpctypes.ErrUserEmpty {
		t.Errorf("a relayed call of nobody's: %v", err)
	}
	answers(t, operators, "/health", 200, `"health":"true"`) // the report asks the shard as sharder
	root, err := clientv3.New(clientv3.Config{Endpoints: []string{r.up()}, Username: "root", Password: "pw", Logger: zap.NewNop()})
	if err != nil {
		t.Fatal(err)
	}
	defer root.Close()
	if err := put(root, "k"); err != nil {
		t.Errorf("a client that is root: %v", err)
	}
}
