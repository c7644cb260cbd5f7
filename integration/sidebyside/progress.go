package main

import (
	"context"
	"errors"
	"fmt"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
)

// progress measures progress requests: every client has a stream with a watch on a range
// where nothing happens, asks how far the stream has come, and asks again when answered.
func progress(ctx context.Context, t *target, p plan) (result, error) {
	ctx, cancel := context.WithTimeout(ctx, p.warm()+p.cell+requestBound)
	defer cancel()
	streams := make([]pb.Watch_WatchClient, p.clients)
	for i := range streams {
		var err error
		if streams[i], err = openWatch(ctx, t, i, "list/"); err != nil {
			return nil, err
		}
	}
	ask := &pb.WatchRequest{RequestUnion: &pb.WatchRequest_ProgressRequest{ProgressRequest: &pb.WatchProgressRequest{}}}
	return runLoop(ctx, t, p, p.clients, func(_ context.Context, client int) error {
		if err := streams[client].Send(ask); err != nil {
			return err
		}
		resp, err := streams[client].Recv()
		if err == nil && (len(resp.Events) > 0 || resp.Canceled) {
			err = fmt.Errorf("not an answer to a progress request: %v", resp)
		}
		return err
	})
}

// openWatch creates a watch on the range below a prefix that ends in a slash, from now on.
func openWatch(ctx context.Context, t *target, client int, prefix string) (pb.Watch_WatchClient, error) {
	stream, err := t.watch(client).Watch(ctx)
	if err != nil {
		return nil, err
	}
	end := []byte(prefix[:len(prefix)-1] + "0") // "0" is what follows "/"
	create := &pb.WatchCreateRequest{Key: []byte(prefix), RangeEnd: end}
	if err := stream.Send(&pb.WatchRequest{RequestUnion: &pb.WatchRequest_CreateRequest{CreateRequest: create}}); err != nil {
		return nil, err
	}
	resp, err := stream.Recv()
	if err != nil {
		return nil, err
	}
	if !resp.Created || resp.Canceled {
		return nil, errors.New("watch not created: " + resp.CancelReason)
	}
	return stream, nil
}
