//go:build docker

package docker

import (
	"slices"
	"testing"
	"time"

	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"

	"github.com/sharder/sharder/integration/history"
	"github.com/sharder/sharder/integration/witness"
)

// patience is how long a request may take, of those the tests make themselves and expect no answer to.
const patience = 2 * time.Second

// refusing asks servers that can't reach the order for a while, and wants them to answer
// nothing but serializable reads, but those: its own requests and what the clients of the
// trial ask meanwhile. The fault has begun.
func (f *fleet) refusing(servers ...witness.Server) {
	f.t.Helper()
	since := f.trial.Log.Now()
	var last *history.Op
	for range 3 {
		for _, s := range servers {
			for _, req := range []proto.Message{
				&pb.RangeRequest{Key: []byte("z4")},
				&pb.RangeRequest{Key: []byte{0}, RangeEnd: []byte{0}},
				&pb.PutRequest{Key: []byte("/h/2"), Value: []byte("refused")},
				&pb.DeleteRangeRequest{Key: []byte("j3")},
				&pb.PutRequest{Key: []byte("a1"), Value: []byte("refused")},
			} {
				last = f.trial.Ask(s, patience, req)
			}
			f.stale(s)
		}
		time.Sleep(300 * time.Millisecond)
	}
	refused := 0
	for _, o := range f.trial.Log.Ops() {
		switch r, ok := o.Request.(*pb.RangeRequest); {
		case o.Call < since || !through(o, servers):
		case o.Err != nil:
			refused++
		case !ok || !r.Serializable:
			f.t.Errorf("%s can't reach the order, and answered %T{%v} with {%v}", o.Through, o.Request, o.Request, o.Reply)
		}
	}
	f.t.Logf("%d requests refused, the last one in %v with %q", refused, last.Return-last.Call, status.Convert(last.Err).Message())
}

// through tells whether one of the servers was asked.
func through(o *history.Op, servers []witness.Server) bool {
	return slices.ContainsFunc(servers, func(s witness.Server) bool { return s.Name == o.Through })
}

// stale reads everything serializably and gives the revision of the answer.
func (f *fleet) stale(s witness.Server) int64 {
	f.t.Helper()
	o := f.trial.Ask(s, witness.Bound, &pb.RangeRequest{Key: []byte{0}, RangeEnd: []byte{0}, Serializable: true})
	if o.Err != nil {
		f.t.Errorf("%s has shards, and refused a serializable read: %v", s.Name, o.Err)
		return 0
	}
	return o.Reply.(*pb.RangeResponse).Header.Revision
}

func TestTheOrderClusterLosesItsQuorumAndGetsItBack(t *testing.T) {
	f := startFleet(t, witness.Seed(t), 1, 1, 1)
	two := f.order.members[:2]
	for _, x := range []fault{
		f.killed("the order's quorum", two...), f.frozen("the order's quorum", two...), f.cutOff("the order's quorum", f.order.network, two...),
	} {
		x.meanwhile = func() { f.refusing(f.servers...) }
		f.happen(x)
	}
	f.trial.Settle()
	f.trial.Judge()
}

func TestASharderCutOffFromTheOrderAcknowledgesNothing(t *testing.T) {
	f := startFleet(t, witness.Seed(t), 1, 1, 1)
	left, right := f.servers[0], f.servers[1]
	x := f.cutOff("sharder left from the order", f.order.network, f.sharders[0])
	x.meanwhile = func() {
		f.refusing(left)
		before := f.stale(left)
		f.trial.FlowingBy(20, "through the other sharder")
		// The past that one sharder still serves stands still, and is the past.
		put := f.trial.Ask(right, witness.Bound, &pb.PutRequest{Key: []byte("j2"), Value: []byte("through the right one")})
		if put.Err != nil {
			t.Fatal(put.Err)
		}
		now := put.Reply.(*pb.PutResponse).Header.Revision
		if after := f.stale(left); after != before || after >= now {
			t.Errorf("a serializable read at the sharder that is cut off is at revision %d, was at %d; the newest is %d", after, before, now)
		}
	}
	f.happen(x)
	// It knows again what it missed.
	if got := f.trial.Ask(left, witness.Bound, &pb.RangeRequest{Key: []byte("j2")}); got.Err != nil {
		t.Error(got.Err)
	}
	f.trial.Settle()
	f.trial.Judge()
}
