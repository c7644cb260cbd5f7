package main

import (
	"errors"
	"fmt"
	"strings"
	"testing"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/sharder/sharder/integration/etcdtest"
	"github.com/sharder/sharder/stages/backend"
	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
)

func TestAClosedGateLetsNothingThrough(t *testing.T) {
	g := &gate{conn: etcdtest.Start(t).Conn(), name: "b"}
	g.keep(errors.New("no answer"))
	refused := func(err error) {
		t.Helper()
		if status.Code(err) != codes.Unavailable || !strings.Contains(err.Error(), "shard b") || !strings.Contains(err.Error(), "no answer") {
			t.Error(err)
		}
	}
	_, err := pb.NewKVClient(g).Put(t.Context(), &pb.PutRequest{Key: []byte("k")})
	refused(err)
	_, err = pb.NewWatchClient(g).Watch(t.Context())
	refused(err)
	g.open.Store(true)
	r, err := pb.NewKVClient(g).Range(t.Context(), &pb.RangeRequest{Key: []byte("k")})
	if err != nil || r.Count != 0 {
		t.Errorf("%v, %v", r, err)
	}
}

func TestAShardThatGoesAwayWhileItIsCheckedIsNoReasonToEnd(t *testing.T) {
	if !outOfReach(fmt.Errorf("looking: %w", status.Error(codes.Unavailable, "gone"))) {
		t.Error("a shard that does not answer is final")
	}
	if outOfReach(errors.Join(&backend.StampMismatch{}, status.Error(codes.Unavailable, "gone"))) || outOfReach(errors.New("holds the key")) || outOfReach(nil) {
		t.Error("what speaks against us is tried again")
	}
}
