package grpcproxy_test

import (
	"context"
	"fmt"
	"strings"
	"testing"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/status"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	clientv3 "go.etcd.io/etcd/client/v3"
)

// etcd's TestWatchFragment*: who asks for fragments gets a revision that is too large for a
// client with a limit in parts, and who doesn't gets it whole, so that such a client ends the
// stream. The revision is that of a deletion, with what was deleted.
func TestLargeRevisionsAreCutForThoseWhoAsk(t *testing.T) {
	const keys, size, limit = 12, 400 << 10, 3 << 20
	probe{
		fault: "nothing is ever cut",
		want: []string{
			"fragments true, a limit true: 12 events, some are fragments: true",
			"fragments true, a limit false: 12 events, some are fragments: true",
			"fragments false, a limit false: 12 events, some are fragments: false",
			"fragments false, a limit true: ResourceExhausted",
		},
		run: func(ctx context.Context, d *door) error {
			c := d.client()
			for _, fragment := range []bool{true, false} {
				for _, bound := range []int{limit, 1 << 30} {
					for i := range keys {
						if _, err := c.Put(ctx, fmt.Sprintf("k%d", i), strings.Repeat("v", size)); err != nil {
							return err
						}
					}
					got, err := deletions(ctx, d, fragment, bound, keys)
					if err != nil {
						return err
					}
					d.say("fragments %v, a limit %v: %s", fragment, bound == limit, got)
				}
			}
			return nil
		},
	}.check(t)
}

// deletions deletes n keys while a client with a limit watches, and tells what it receives.
func deletions(ctx context.Context, d *door, fragment bool, limit, n int) (string, error) {
	conn, err := grpc.NewClient("passthrough:///"+d.addr, grpc.WithTransportCredentials(insecure.NewCredentials()),
		grpc.WithDefaultCallOptions(grpc.MaxCallRecvMsgSize(limit)))
	if err != nil {
		return "", err
	}
	defer conn.Close()
	ctx, cancel := context.WithTimeout(ctx, soon)
	defer cancel()
	s, err := pb.NewWatchClient(conn).Watch(ctx)
	if err != nil {
		return "", err
	}
	create := ofK(0)
	create.Fragment, create.PrevKv = fragment, true
	if err := s.Send(&pb.WatchRequest{RequestUnion: &pb.WatchRequest_CreateRequest{CreateRequest: create}}); err != nil {
		return "", err
	}
	if _, err := s.Recv(); err != nil {
		return "", err
	}
	if _, err := d.behind().Delete(ctx, "k", clientv3.WithPrefix()); err != nil {
		return "", err
	}
	events, fragments := 0, false
	for events < n {
		m, err := s.Recv()
		if err != nil {
			return status.Code(err).String(), nil
		}
		events += len(m.Events)
		fragments = fragments || m.Fragment
	}
	return fmt.Sprintf("%d events, some are fragments: %v", events, fragments), nil
}
