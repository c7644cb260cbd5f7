package main

import (
	"errors"
	"io"
	"testing"
	"time"

	"github.com/sharder/sharder/integration/etcdtest"
	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	"go.etcd.io/etcd/api/v3/mvccpb"
)

// A lease whose id the client chose has another id on the shards. No way out of sharder
// may show that one.
func TestEveryWayOutShowsTheLeaseIDThatTheClientChose(t *testing.T) {
	a, b := etcdtest.Start(t), etcdtest.Start(t)
	r := start(t, external(a.Endpoint, b.Endpoint))
	within(t, 30*time.Second, func() error { return put(r.client(), "z") })
	conn := r.conn()
	kv := pb.NewKVClient(conn)
	if _, err := pb.NewLeaseClient(conn).LeaseGrant(t.Context(), &pb.LeaseGrantRequest{ID: 7, TTL: 60}); err != nil {
		t.Fatal(err)
	}
	w, err := pb.NewWatchClient(conn).Watch(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if err := w.Send(&pb.WatchRequest{RequestUnion: &pb.WatchRequest_CreateRequest{CreateRequest: &pb.WatchCreateRequest{
		Key: []byte{0}, RangeEnd: []byte{0}, PrevKv: true,
	}}}); err != nil {
		t.Fatal(err)
	}
	if _, err := w.Recv(); err != nil {
		t.Fatal(err)
	}
	for _, k := range []string{"a", "z"} {
		if _, err := kv.Put(t.Context(), &pb.PutRequest{Key: []byte(k), Lease: 7}); err != nil {
			t.Fatal(err)
		}
	}
	check := func(way string, kvs []*mvccpb.KeyValue, want int) {
		t.Helper()
		if len(kvs) != want {
			t.Errorf("%s: %d keys, want %d", way, len(kvs), want)
		}
		for _, kv := range kvs {
			if kv.Lease != 7 {
				t.Errorf("%s: %s has lease %d", way, kv.Key, kv.Lease)
			}
		}
	}
	for end, want := range map[string]int{"b": 1, "\x00": 2} {
		req := &pb.RangeRequest{Key: []byte("a"), RangeEnd: []byte(end)}
		got, err := kv.Range(t.Context(), req)
		if err != nil {
			t.Fatal(err)
		}
		check("range", got.Kvs, want)
		check("range stream", streamed(t, kv, req), want)
	}
	for seen := 0; seen < 2; {
		m, err := w.Recv()
		if err != nil {
			t.Fatal(err)
		}
		for _, ev := range m.Events {
			check("watch", []*mvccpb.KeyValue{ev.Kv}, 1)
			seen++
		}
	}
}

func streamed(t *testing.T, kv pb.KVClient, req *pb.RangeRequest) (kvs []*mvccpb.KeyValue) {
	t.Helper()
	s, err := kv.RangeStream(t.Context(), req)
	for err == nil {
		var m *pb.RangeStreamResponse
		if m, err = s.Recv(); err == nil {
			kvs = append(kvs, m.RangeResponse.Kvs...)
		}
	}
	if !errors.Is(err, io.EOF) {
		t.Fatal(err)
	}
	return kvs
}
