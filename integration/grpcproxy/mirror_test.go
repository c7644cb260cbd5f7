package grpcproxy_test

import (
	"context"
	"testing"

	clientv3 "go.etcd.io/etcd/client/v3"
	"go.etcd.io/etcd/client/v3/mirror"
)

// etcd's TestMirrorSync_Authenticated: a mirror of what a user may see, through the proxy.
func TestAUsersMirrorFollows(t *testing.T) {
	probe{
		fault: "its watch has the rights of who came first, and hears nothing",
		want:  []string{"base: b0, b1", "update: PUT b2", "update: DELETE b0"},
		run: func(ctx context.Context, d *door) error {
			if err := d.withUsers(ctx); err != nil {
				return err
			}
			// Somebody else has been there first.
			ann := d.client("ann")
			for range ann.Watch(ctx, "a", withCreated...) {
				break
			}
			bob := d.client("bob")
			for _, key := range []string{"b0", "b1"} {
				if _, err := bob.Put(ctx, key, "v"); err != nil {
					return err
				}
			}
			s := mirror.NewSyncer(bob, "b", 0)
			base, errs := s.SyncBase(ctx)
			for r := range base {
				text := ""
				for _, kv := range r.Kvs {
					text += ", " + string(kv.Key)
				}
				d.say("base: %s", text[2:])
			}
			if err := <-errs; err != nil {
				return err
			}
			updates := s.SyncUpdates(ctx)
			if _, err := bob.Put(ctx, "b2", "v"); err != nil {
				return err
			}
			if _, err := bob.Delete(ctx, "b0"); err != nil {
				return err
			}
			for seen := 0; seen < 2; {
				select {
				case r, ok := <-updates:
					if !ok || r.Err() != nil {
						return r.Err()
					}
					for _, e := range r.Events {
						d.say("update: %v %s", e.Type, e.Kv.Key)
						seen++
					}
				case <-after(soon):
					return errSilent
				}
			}
			return nil
		},
	}.check(t)
}

// withCreated has a watch say when it stands.
var withCreated = []clientv3.OpOption{clientv3.WithPrefix(), clientv3.WithCreatedNotify()}
