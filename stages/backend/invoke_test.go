package backend

import (
	"context"
	"net"
	"net/url"
	"strings"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/peer"
	"google.golang.org/grpc/status"

	"github.com/sharder/sharder/integration/etcdproc"
	"github.com/sharder/sharder/integration/etcdtest"
	"github.com/sharder/sharder/integration/ports"
	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	"go.etcd.io/etcd/server/v3/embed"
)

// silentAddr is a loopback address that takes connections and never says a word.
func silentAddr(t testing.TB) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() })
	return l.Addr().String()
}

func TestOpenNeedsNoNetwork(t *testing.T) {
	c, err := Open(Options{Name: "a", Endpoints: []string{ports.Of(t)}})
	if err != nil {
		t.Fatal(err)
	}
	if c.Healthy() || c.NoLeader() {
		t.Error("nobody was asked, and yet something is known")
	}
	if err := c.Close(); err != nil {
		t.Error(err)
	}
	if err := c.Close(); err != nil {
		t.Error(err)
	}
	_, err = get(within(t, time.Second), c, "k")
	wantStatus(t, err, codes.Unavailable, "sharder: shard a: closed")
}

func TestTheFirstCallsWaitForTheFirstProbe(t *testing.T) {
	e := etcdtest.Start(t)
	for range 20 {
		c := open(t, Options{Endpoints: []string{ports.Of(t), e.Endpoint}})
		err := put(within(t, 30*time.Second), c, "k", "v")
		if m := c.Members()[1]; err != nil && m.Err != nil && strings.Contains(m.Err.Error(), "no answer to") {
			continue // the probe itself was not answered in time
		}
		for range 9 {
			if err == nil {
				err = put(within(t, 30*time.Second), c, "k", "v")
			}
		}
		if err != nil {
			t.Fatal(err)
		}
		return
	}
	t.Error("no probe was answered")
}

func TestACallWithoutProbesGoesToWhoeverAnswers(t *testing.T) {
	e := etcdtest.Start(t)
	c, err := Open(Options{Name: "a", Endpoints: []string{ports.Of(t), e.Endpoint}})
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	for range 4 { // nobody runs the cluster: also writes pass over what can't be reached
		if err := put(within(t, 30*time.Second), c, "k", "v"); err != nil {
			t.Fatal(err)
		}
	}
}

func TestNobodyThereIsKnownAfterTheFirstProbe(t *testing.T) {
	for what, addr := range map[string]string{"refused": ports.Of(t), "silent": silentAddr(t)} {
		c := open(t, Options{Endpoints: []string{addr}})
		select {
		case <-c.settled: // nobody has asked for anything, so it is the probe that tells
		case <-time.After(30 * time.Second):
			t.Fatalf("%s: nobody knows", what)
		}
		_, err := get(within(t, 30*time.Second), c, "k")
		if status.Code(err) != codes.Unavailable || !strings.Contains(err.Error(), "sharder: shard a: no member answers (last error: "+addr) {
			t.Errorf("%s: %v", what, err)
		}
	}
}

func TestErrorsOfEtcdPassByteForByte(t *testing.T) {
	e := etcdtest.Start(t)
	c := serving(t, Options{Endpoints: []string{e.Endpoint}})
	requests := map[string]func(grpc.ClientConnInterface) error{
		"empty key": func(conn grpc.ClientConnInterface) error {
			_, err := pb.NewKVClient(conn).Put(within(t, 30*time.Second), &pb.PutRequest{})
			return err
		},
		"future revision": func(conn grpc.ClientConnInterface) error {
			_, err := pb.NewKVClient(conn).Range(within(t, 30*time.Second), &pb.RangeRequest{Key: []byte("k"), Revision: 99})
			return err
		},
		"lease not found": func(conn grpc.ClientConnInterface) error {
			_, err := pb.NewLeaseClient(conn).LeaseRevoke(within(t, 30*time.Second), &pb.LeaseRevokeRequest{ID: 7})
			return err
		},
		"too large": func(conn grpc.ClientConnInterface) error {
			_, err := pb.NewKVClient(conn).Put(within(t, 30*time.Second), &pb.PutRequest{Key: []byte("k"), Value: make([]byte, 3<<20)})
			return err
		},
	}
	conn := e.Conn()
	for what, do := range requests {
		direct, through := status.Convert(do(conn)), status.Convert(do(c))
		if direct.Code() == codes.OK || direct.Code() != through.Code() || direct.Message() != through.Message() {
			t.Errorf("%s: etcd says %v, through the cluster it is %v", what, direct, through)
		}
	}
}

func TestCallOptionsOfTheCallerWork(t *testing.T) {
	e := etcdtest.Start(t)
	c := serving(t, Options{Endpoints: []string{e.Endpoint}})
	var header, trailer metadata.MD
	var p peer.Peer
	opts := make([]grpc.CallOption, 0, 8) // spare room must not be written to
	opts = append(opts, grpc.Header(&header), grpc.Trailer(&trailer), grpc.Peer(&p), grpc.WaitForReady(true))
	_, err := pb.NewKVClient(c).Range(within(t, 30*time.Second), &pb.RangeRequest{Key: []byte("k")}, opts...)
	if err != nil {
		t.Fatal(err)
	}
	if len(header.Get("content-type")) != 1 || p.Addr == nil || p.Addr.String() != e.Endpoint {
		t.Errorf("header %v, trailer %v, peer %v", header, trailer, p)
	}
	if spare := opts[:5][4]; spare != nil {
		t.Error("the caller's options were written to")
	}
}

func TestDeadlinesOfTheCallerHold(t *testing.T) {
	c := closing(t, Options{Endpoints: []string{silentAddr(t)}}) // a probe that is late would be an answer
	begin := time.Now()
	_, err := get(within(t, 100*time.Millisecond), c, "k") // still waiting for the first probe
	if status.Code(err) != codes.DeadlineExceeded || time.Since(begin) > 10*time.Second {
		t.Errorf("after %v: %v", time.Since(begin), err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	if _, err := get(ctx, c, "k"); status.Code(err) != codes.Canceled {
		t.Errorf("cancelled: %v", err)
	}
}

func TestACallWithoutADeadlineGetsOneThatNamesTheShard(t *testing.T) {
	e := etcdproc.Start(t, 1)
	// Probed once, then frozen: nobody else notices.
	c := serving(t, Options{Endpoints: e.Endpoints(), HealthInterval: time.Hour, Timeout: 300 * time.Millisecond})
	e.Pause(0)
	wantStatus(t, put(context.Background(), c, "k", "v"), codes.DeadlineExceeded, "sharder: shard a: no answer within 300ms")
	err := put(within(t, 200*time.Millisecond), c, "k", "v") // the caller's own stays the caller's
	if status.Code(err) != codes.DeadlineExceeded || strings.Contains(err.Error(), "sharder") {
		t.Errorf("got %v", err)
	}
}

func TestCallsThatWaitByDesignGetNoDeadline(t *testing.T) {
	for _, c := range []struct {
		timeout time.Duration
		method  string
		want    bool
	}{
		{0, pb.KV_Put_FullMethodName, true},
		{-1, pb.KV_Put_FullMethodName, false},
		{time.Second, pb.Maintenance_Defragment_FullMethodName, false},
		{time.Second, "/v3lockpb.Lock/Lock", false},
	} {
		cluster, err := Open(Options{Name: "a", Endpoints: []string{"127.0.0.1:1"}, Timeout: c.timeout})
		if err != nil {
			t.Fatal(err)
		}
		ctx, cancel := endingAt(context.Background(), cluster.deadline(context.Background(), c.method))
		if _, got := ctx.Deadline(); got != c.want {
			t.Errorf("%+v: %v", c, got)
		}
		cancel()
		_ = cluster.Close()
	}
}

func TestRoundRobinSpreadsOverTheMembers(t *testing.T) {
	one := ports.Of(t) // two addresses of one etcd: of two, one might seem to lag behind the other
	e := etcdtest.Start(t, func(c *embed.Config) {
		c.ListenClientUrls = append(c.ListenClientUrls, url.URL{Scheme: "http", Host: one})
	})
	two := e.Endpoint
	c := closing(t, Options{Endpoints: []string{one, two}})
	settle(t, c, "both can serve", func() bool { return allAble(c) })
	asked := make(map[string]int)
	for range 20 {
		var p peer.Peer
		if _, err := pb.NewKVClient(c).Range(within(t, 30*time.Second), &pb.RangeRequest{Key: []byte("k")}, grpc.Peer(&p)); err != nil {
			t.Fatal(err)
		}
		asked[p.Addr.String()]++
	}
	if asked[one] != 10 || asked[two] != 10 {
		t.Errorf("asked %v", asked)
	}
}

func TestOnlyReadsMayBeRepeated(t *testing.T) {
	read := &pb.RequestOp{Request: &pb.RequestOp_RequestRange{RequestRange: &pb.RangeRequest{}}}
	write := &pb.RequestOp{Request: &pb.RequestOp_RequestDeleteRange{RequestDeleteRange: &pb.DeleteRangeRequest{}}}
	nest := func(op *pb.RequestOp) *pb.TxnRequest {
		return &pb.TxnRequest{Failure: []*pb.RequestOp{read, {Request: &pb.RequestOp_RequestTxn{RequestTxn: &pb.TxnRequest{Success: []*pb.RequestOp{op}}}}}}
	}
	for _, c := range []struct {
		method string
		args   any
		want   bool
	}{
		{pb.KV_Range_FullMethodName, &pb.RangeRequest{}, true},
		{pb.KV_Put_FullMethodName, &pb.PutRequest{}, false},
		{pb.KV_DeleteRange_FullMethodName, &pb.DeleteRangeRequest{}, false},
		{pb.KV_Compact_FullMethodName, &pb.CompactionRequest{}, false},
		{pb.Lease_LeaseGrant_FullMethodName, &pb.LeaseGrantRequest{}, false},
		{pb.Lease_LeaseTimeToLive_FullMethodName, &pb.LeaseTimeToLiveRequest{}, true},
		{pb.KV_Txn_FullMethodName, nest(read), true},
		{pb.KV_Txn_FullMethodName, nest(write), false},
		{pb.KV_Txn_FullMethodName, &pb.TxnRequest{Success: []*pb.RequestOp{{}}}, false},
	} {
		if got := repeatable(c.method, c.args); got != c.want {
			t.Errorf("%s %v: %v", c.method, c.args, got)
		}
	}
}

func BenchmarkRangeThroughTheCluster(b *testing.B) {
	e := etcdtest.Start(b)
	conns := map[string]grpc.ClientConnInterface{"direct": e.Conn(), "cluster": open(b, Options{Endpoints: []string{e.Endpoint}})}
	for _, what := range []string{"direct", "cluster"} {
		b.Run(what, func(b *testing.B) {
			kv := pb.NewKVClient(conns[what])
			b.ReportAllocs()
			for b.Loop() {
				if _, err := kv.Range(context.Background(), &pb.RangeRequest{Key: []byte("k")}); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}
