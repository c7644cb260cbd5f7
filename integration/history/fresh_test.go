package history

import (
	"testing"
	"time"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	"go.etcd.io/etcd/api/v3/mvccpb"
)

func TestAReadThatIsTooOldIsFoundAndOthersAreNot(t *testing.T) {
	put := func(rev int64) *mvccpb.Event {
		return &mvccpb.Event{Kv: &mvccpb.KeyValue{Key: []byte("k"), ModRevision: rev, CreateRevision: 2, Version: rev - 1}}
	}
	timeline, wrong := NewTimeline([]*mvccpb.Event{put(2), put(3)})
	if wrong != nil {
		t.Fatal(wrong)
	}
	write := func(rev int64, at time.Duration) *Op {
		return &Op{Call: at, Return: at, Request: &pb.PutRequest{Key: []byte("k")}, Reply: &pb.PutResponse{Header: &pb.ResponseHeader{Revision: rev}}}
	}
	read := func(rev int64, at time.Duration) *Op {
		return &Op{Call: at, Return: at, Request: &pb.RangeRequest{Key: []byte("k"), Serializable: true}, Reply: &pb.RangeResponse{Header: &pb.ResponseHeader{Revision: rev}}}
	}
	ops := []*Op{write(2, time.Second), write(3, 2*time.Second), read(2, 3*time.Second), read(3, 9*time.Second)}
	if wrong, n := CheckFresh(ops, timeline, 2*time.Second); wrong != nil || n != 2 {
		t.Errorf("%v after %d", wrong, n)
	}
	if wrong, _ := CheckFresh(append(ops, read(2, 5*time.Second)), timeline, 2*time.Second); len(wrong) != 1 || wrong[0].Rule != Stale {
		t.Errorf("%v", wrong)
	}
}
