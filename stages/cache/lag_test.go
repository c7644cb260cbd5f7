package cache_test

import (
	"context"
	"testing"
	"time"

	"google.golang.org/grpc"

	"github.com/sharder/sharder/integration/etcdtest"
	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
)

// deaf is a connection whose streams bring nothing while it is deaf: what the shard has sent
// waits.
type deaf struct {
	grpc.ClientConnInterface
	open chan chan struct{} // holds what a reader waits for
}

func newDeaf(next grpc.ClientConnInterface) *deaf {
	d := &deaf{next, make(chan chan struct{}, 1)}
	open := make(chan struct{})
	close(open)
	d.open <- open
	return d
}

// hear ends deafness, or begins it.
func (d *deaf) hear(yes bool) {
	now := <-d.open
	if yes {
		close(now)
	} else {
		now = make(chan struct{})
	}
	d.open <- now
}

func (d *deaf) NewStream(ctx context.Context, desc *grpc.StreamDesc, method string, opts ...grpc.CallOption) (grpc.ClientStream, error) {
	s, err := d.ClientConnInterface.NewStream(ctx, desc, method, opts...)
	return &deafStream{s, d}, err
}

type deafStream struct {
	grpc.ClientStream
	of *deaf
}

func (s *deafStream) RecvMsg(m any) error {
	err := s.ClientStream.RecvMsg(m)
	open := <-s.of.open
	s.of.open <- open
	select {
	case <-open:
	case <-s.Context().Done():
	}
	return err
}

// apart sends writes to one etcd, and has the rest answered by another.
type apart struct {
	grpc.ClientConnInterface
	writes grpc.ClientConnInterface
}

func (a *apart) Invoke(ctx context.Context, method string, args, reply any, opts ...grpc.CallOption) error {
	if method == pb.KV_Put_FullMethodName {
		return a.writes.Invoke(ctx, method, args, reply, opts...)
	}
	return a.ClientConnInterface.Invoke(ctx, method, args, reply, opts...)
}

// A member that lags is an etcd of its own here, that was written to less. What it answers
// behind a write is not kept: a client would go on not finding his own.
func TestWhatAMemberAnswersThatHasNotGotAWriteIsNotKept(t *testing.T) {
	t.Parallel()
	ahead, behind := etcdtest.Start(t), etcdtest.Start(t)
	writes := ahead.Conn()
	r := newRig(t, behind, func(o *options) {
		o.conn = func(reads grpc.ClientConnInterface) grpc.ClientConnInterface { return &apart{reads, writes} }
	})
	put(t, r.etcd, "k", "old", 0)
	var rev int64
	for range 3 {
		rev = put(t, r.kv, "k", "new", 0)
	}
	for range 20 {
		if v := value(r.read(t.Context(), key("k"))); v != "old" {
			t.Fatalf("%q: the member has it already", v)
		}
		time.Sleep(5 * time.Millisecond) // so that the watcher is there
	}
	if s := r.cache.Stats(); s.Hits > 0 || s.Watchers != 1 {
		t.Fatalf("%+v", s)
	}
	for put(t, r.etcd, "k", "new", 0) < rev {
	}
	if v := value(r.warm(t.Context(), key("k"))); v != "new" {
		t.Fatalf("%q from memory", v)
	}
}
