package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/keepalive"
	"google.golang.org/grpc/status"

	"github.com/sharder/sharder/integration/cable"
	"github.com/sharder/sharder/integration/etcdtest"
	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"
	"go.etcd.io/etcd/server/v3/embed"
)

// oneShard runs a sharder before a fresh etcd, with more at the top of its file, and waits until
// it serves. The etcd is not asked whether it is still there: it is, though others may keep it busy for seconds.
func oneShard(t *testing.T, top string, opts ...etcdtest.Option) *sharderRun {
	t.Helper()
	r := start(t, fmt.Sprintf("%s\n[shards.a]\nhealth_interval = \"60s\"\nendpoints = [%q]\n", top, etcdtest.Start(t, opts...).Endpoint))
	putAt(t, r.client(), "k")
	return r
}

// openWatch opens a watch, a stream of its own, that goes on until ctx ends.
func openWatch(ctx context.Context, conn *grpc.ClientConn) error {
	s, err := pb.NewWatchClient(conn).Watch(ctx)
	if err == nil {
		err = s.Send(&pb.WatchRequest{RequestUnion: &pb.WatchRequest_CreateRequest{CreateRequest: &pb.WatchCreateRequest{Key: []byte("k")}}})
	}
	if err == nil {
		_, err = s.Recv()
	}
	return err
}

// openWatches opens n of them, however long that takes, and leaves them open until the test ends.
func openWatches(t *testing.T, conn *grpc.ClientConn, n int) {
	t.Helper()
	for i := range n {
		ctx, cancel := context.WithCancel(t.Context())
		late := time.AfterFunc(30*time.Second, cancel)
		if err := openWatch(ctx, conn); err != nil || !late.Stop() {
			t.Fatalf("stream %d of %d: %v", i+1, n, err)
		}
	}
}

// noMoreWatches wants one more to have to wait.
func noMoreWatches(t *testing.T, conn *grpc.ClientConn) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), time.Second)
	defer cancel()
	if err := openWatch(ctx, conn); status.Code(err) != codes.DeadlineExceeded {
		t.Errorf("one more stream could be opened: %v", err)
	}
}

func TestAConnectionHasAsManyStreamsAsItMay(t *testing.T) {
	t.Parallel()
	r := oneShard(t, "[grpc]\nmax_concurrent_streams = 2")
	conn := r.conn()
	openWatches(t, conn, 2)
	noMoreWatches(t, conn)
	if err := put(r.client(), "k"); err != nil { // another connection
		t.Error(err)
	}
	// The gateway's connection is everybody's.
	for range 3 {
		holdWatch(t, r.endpoint)
	}
	if code, answer := post(r.endpoint, "/v3/kv/range", `{"key":"aw=="}`); code != 200 {
		t.Errorf("%d %v", code, answer)
	}
	openWatches(t, oneShard(t, "").conn(), 10)
}

// pings has a client ping a server every ten seconds, while nothing is open or something is, and
// gives whether it was let go on for so long.
func pings(t *testing.T, endpoint string, open bool, d time.Duration) bool {
	t.Helper()
	conn, err := grpc.NewClient("passthrough:///"+endpoint, grpc.WithTransportCredentials(insecure.NewCredentials()),
		grpc.WithKeepaliveParams(keepalive.ClientParameters{Time: 10 * time.Second, Timeout: time.Minute, PermitWithoutStream: true}))
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	ctx, cancel := context.WithTimeout(t.Context(), d)
	defer cancel()
	kv := pb.NewKVClient(conn)
	if _, err := kv.Range(ctx, &pb.RangeRequest{Key: []byte("k")}); err != nil {
		t.Fatal(err)
	}
	if open {
		s, err := pb.NewWatchClient(conn).Watch(ctx)
		if err != nil {
			t.Fatal(err)
		}
		_, err = s.Recv()
		return status.Code(err) == codes.DeadlineExceeded || errors.Is(err, context.DeadlineExceeded)
	}
	state := conn.GetState()
	return !conn.WaitForStateChange(ctx, state)
}

// Those who ping more often than they may are sent away, those who may are not.
func TestWhoPingsTooOftenIsSentAway(t *testing.T) {
	t.Parallel()
	if testing.Short() {
		t.Skip("gRPC lets no client ping more often than every ten seconds")
	}
	strict, idle := oneShard(t, "[grpc]\nkeepalive_min_time = \"60s\""), oneShard(t, "[grpc]\nkeepalive_without_calls = true")
	plain := oneShard(t, "")
	for _, c := range []struct {
		name       string
		r          *sharderRun
		open, stay bool
	}{
		{"strict", strict, true, false},
		{"by default, with a stream", plain, true, true},
		{"by default, with nothing open", plain, false, false},
		{"without calls", idle, false, true},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			d := 35 * time.Second // three pings, which is one too many
			if !c.stay {
				d = 2 * time.Minute // one that came while an answer was sent does not count
			}
			if stays := pings(t, c.r.endpoint, c.open, d); stays != c.stay {
				t.Errorf("it stays: %t", stays)
			}
		})
	}
}

// A client that answers no ping is not kept: one that is silent is pinged.
func TestAClientThatDoesNotAnswerIsLetGo(t *testing.T) {
	t.Parallel()
	r := oneShard(t, "[grpc]\nkeepalive_interval = \"1s\"\nkeepalive_timeout = \"5s\"") // in which a client that is there answers
	wire := cable.New(t, r.endpoint)
	s, err := pb.NewWatchClient(etcdtest.Conn(t, wire.Addr)).Watch(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if err := s.Send(&pb.WatchRequest{RequestUnion: &pb.WatchRequest_CreateRequest{CreateRequest: &pb.WatchCreateRequest{Key: []byte("k")}}}); err != nil {
		t.Fatal(err)
	}
	if _, err := s.Recv(); err != nil {
		t.Fatal(err)
	}
	answers(t, r.endpoint, "/metrics", 200, `sharder_rpc_streams_open{rpc="Watch/Watch"} 1`)
	wire.Hold()
	answers(t, r.endpoint, "/metrics", 200, `sharder_rpc_streams_open{rpc="Watch/Watch"} 0`)
}

// A request is as large as both sides allow: etcd's grpc-proxy refuses what is over 4 MiB.
func TestAFiveMegabytePutPasses(t *testing.T) {
	t.Parallel()
	large := string(bytes.Repeat([]byte("x"), 5<<20))
	wide := func(c *embed.Config) { c.MaxRequestBytes = 16 << 20 }
	r := oneShard(t, "max_request_bytes = \"16MiB\"", wide)
	kv := pb.NewKVClient(r.conn())
	if _, err := kv.Put(t.Context(), &pb.PutRequest{Key: []byte("k"), Value: []byte(large)}); err != nil {
		t.Fatal(err)
	}
	g, err := kv.Range(t.Context(), &pb.RangeRequest{Key: []byte("k")})
	if err != nil || string(g.Kvs[0].Value) != large {
		t.Errorf("%v", err)
	}
	// What the shard does not take it refuses in its own words.
	r = oneShard(t, "max_request_bytes = \"16MiB\"", func(c *embed.Config) { c.MaxRequestBytes = 5 << 20 })
	_, err = pb.NewKVClient(r.conn()).Put(t.Context(), &pb.PutRequest{Key: []byte("k"), Value: []byte(large)})
	if status.Convert(err).Message() != rpctypes.ErrorDesc(rpctypes.ErrGRPCRequestTooLarge) {
		t.Errorf("%v", err)
	}
}
