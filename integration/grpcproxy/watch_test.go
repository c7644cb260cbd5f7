package grpcproxy_test

import (
	"context"
	"testing"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
)

// P10: what a watch says, response by response.
func TestAWatchSaysWhatEtcdSays(t *testing.T) {
	probe{
		fault: "watch ids are its own, requests for progress are not answered, reasons and headers are missing",
		want: []string{
			`create: watch 77 created, revision 2`,
			`progress: watch -1, revision 2`,
			`taken: watch -1 created canceled ("mvcc: duplicate watch ID provided on the WatchStream"), revision 2`,
			`empty range: watch -1 created canceled ("mvcc: watcher range is empty"), revision 2`,
			`event: watch 77 PUT k@3 was 1@2, revision 3`,
			`future: watch 0 created, revision 3`,
			`cancel: watch 77 canceled (""), revision 3`,
		},
		run: func(ctx context.Context, d *door) error {
			c := d.client()
			if _, err := c.Put(ctx, "k", "1"); err != nil {
				return err
			}
			w, err := d.watching(ctx)
			if err != nil {
				return err
			}
			for _, step := range []struct {
				what string
				do   func() error
			}{
				{"create", func() error { return w.create(&pb.WatchCreateRequest{Key: []byte("k"), WatchId: 77, PrevKv: true}) }},
				{"progress", w.progress},
				{"taken", func() error { return w.create(&pb.WatchCreateRequest{Key: []byte("k"), WatchId: 77}) }},
				{"empty range", func() error { return w.create(&pb.WatchCreateRequest{Key: []byte("b"), RangeEnd: []byte("a")}) }},
				{"event", func() error { _, err := c.Put(ctx, "k", "2"); return err }},
				{"future", func() error { return w.create(&pb.WatchCreateRequest{Key: []byte("f"), StartRevision: 100}) }},
				{"cancel", func() error { return w.cancel(77) }},
			} {
				if err := step.do(); err != nil {
					return err
				}
				if err := w.tell(step.what, 1); err != nil && err != errSilent {
					return err
				}
			}
			return nil
		},
	}.check(t)
}

// P10: a client that has said all goes on hearing.
func TestAHalfClosedWatchGoesOn(t *testing.T) {
	probe{
		fault: "the stream ends",
		want:  []string{"half-closed: watch 0 PUT k@2, revision 2", "half-closed: watch 0 PUT k@3, revision 3"},
		run: func(ctx context.Context, d *door) error {
			w, err := d.watched(ctx, &pb.WatchCreateRequest{Key: []byte("k")})
			if err != nil {
				return err
			}
			if err := w.CloseSend(); err != nil {
				return err
			}
			if m, err := w.next(silence); err != errSilent {
				d.say("half-closed: %v %v", m, err)
			}
			for _, v := range []string{"1", "2"} {
				if _, err := d.client().Put(ctx, "k", v); err != nil {
					return err
				}
				if err := w.tell("half-closed", 1); err != nil {
					return err
				}
			}
			return nil
		},
	}.check(t)
}
