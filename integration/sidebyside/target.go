package main

import (
	"context"
	"fmt"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
)

// connections is how many connections the clients of a target share: enough that no
// single one is the bottleneck, few enough that the machine measures requests.
const connections = 8

// target is one thing that speaks the etcd API. Any number of goroutines use it. It is
// closed by the stand.
type target struct {
	name   string
	addr   string
	proxy  *process // what stands in front of etcd; nil for etcd itself
	shards []member // the etcds that hold the keys
	order  *member  // the etcd that holds the order of several; nil without one
	conns  []*grpc.ClientConn

	resident int64 // memory of the proxy before its first idle connections
	ownPace  bool  // answers keep-alives when it makes its own, not when asked
}

// dial opens the connections. They connect when first used.
func (t *target) dial() error {
	for range connections {
		conn, err := grpc.NewClient("passthrough:///"+t.addr,
			grpc.WithTransportCredentials(insecure.NewCredentials()), grpc.WithNoProxy(),
			grpc.WithDefaultCallOptions(grpc.MaxCallRecvMsgSize(64<<20)))
		if err != nil {
			return err
		}
		t.conns = append(t.conns, conn)
	}
	return nil
}

// close ends the connections.
func (t *target) close() {
	for _, c := range t.conns {
		_ = c.Close()
	}
}

// conn is the connection that a client uses.
func (t *target) conn(client int) *grpc.ClientConn { return t.conns[client%len(t.conns)] }

func (t *target) kv(client int) pb.KVClient       { return pb.NewKVClient(t.conn(client)) }
func (t *target) watch(client int) pb.WatchClient { return pb.NewWatchClient(t.conn(client)) }
func (t *target) lease(client int) pb.LeaseClient { return pb.NewLeaseClient(t.conn(client)) }

// readyBound is how long a target may take until it serves.
const readyBound = 60 * time.Second

// ready waits until a linearizable read is answered on every connection.
func (t *target) ready(ctx context.Context) error {
	ctx, cancel := context.WithTimeoutCause(ctx, readyBound, fmt.Errorf("%s does not serve after %v", t.name, readyBound))
	defer cancel()
	for i := range t.conns {
		for {
			_, err := t.kv(i).Range(ctx, &pb.RangeRequest{Key: workKey(0)})
			if err == nil {
				break
			}
			if gone := t.gone(); gone != nil {
				return gone
			}
			select {
			case <-ctx.Done():
				return fmt.Errorf("%w: %w", context.Cause(ctx), err)
			case <-time.After(50 * time.Millisecond):
			}
		}
	}
	return nil
}

// gone is an error if a process of the target has ended.
func (t *target) gone() error {
	if t.proxy != nil {
		if err := t.proxy.ended(); err != nil {
			return err
		}
	}
	for _, m := range t.members() {
		if err := m.process.ended(); err != nil {
			return err
		}
	}
	return nil
}

// members are all etcds behind the target.
func (t *target) members() []member {
	if t.order == nil {
		return t.shards
	}
	return append(t.shards[:len(t.shards):len(t.shards)], *t.order)
}
