package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/sourcegraph/conc"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/encoding/protowire"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/emptypb"

	"github.com/sharder/sharder/integration/etcdtest"
	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
)

// newer stands for an etcd of a later version in front of a real one: each of its answers
// has a field, a header and a trailer that nobody knows today.
type newer struct {
	etcd *grpc.ClientConn
	last atomic.Pointer[passed]
}

// passed is a call of the test's own: sharder calls as well, whenever it likes.
type passed struct {
	seen   metadata.MD
	answer []byte
}

// serve relays one call, message by message.
func (n *newer) serve(_ any, in grpc.ServerStream) error {
	method, _ := grpc.MethodFromServerStream(in)
	md, _ := metadata.FromIncomingContext(in.Context())
	m := &emptypb.Empty{}
	if err := in.RecvMsg(m); err != nil {
		return err
	}
	_ = in.SetHeader(metadata.Pairs("x-header", "h1", "x-header", "h2"))
	in.SetTrailer(metadata.Pairs("x-trailer-bin", "\x00\x01"))
	answer := &emptypb.Empty{}
	if err := n.etcd.Invoke(in.Context(), method, m, answer); err != nil {
		return err
	}
	b := protowire.AppendTag(answer.ProtoReflect().GetUnknown(), 1000, protowire.BytesType)
	b = protowire.AppendString(b, "not known today")
	if len(md.Get("x-client")) > 0 {
		n.last.Store(&passed{md, b})
	}
	answer.ProtoReflect().SetUnknown(b)
	return in.SendMsg(answer)
}

// startNewer serves it, and gives its address.
func startNewer(t *testing.T) (*newer, string) {
	t.Helper()
	n := &newer{etcd: etcdtest.Start(t).Conn()}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	g := grpc.NewServer(grpc.UnknownServiceHandler(n.serve), grpc.WaitForHandlers(true))
	var wg conc.WaitGroup
	wg.Go(func() { _ = g.Serve(l) })
	t.Cleanup(func() { g.Stop(); wg.Wait() })
	return n, l.Addr().String()
}

// The answers of one shard reach the client byte for byte, with what came beside them: also
// those of an etcd that knows more than sharder.
func TestAnswersOfOneShardPassByteForByte(t *testing.T) {
	t.Parallel()
	n, addr := startNewer(t)
	r := start(t, fmt.Sprintf("[shards.a]\nendpoints = [%q]\n[routes]\n\"\" = \"a\"\n", addr))
	conn := r.conn()
	kv := pb.NewKVClient(conn)
	within(t, 30*time.Second, func() error {
		_, err := kv.Put(t.Context(), &pb.PutRequest{Key: []byte("k"), Value: make([]byte, 100_000)})
		return err
	})
	for method, in := range map[string]proto.Message{
		pb.KV_Range_FullMethodName:       &pb.RangeRequest{Key: []byte("k")},
		pb.KV_Put_FullMethodName:         &pb.PutRequest{Key: []byte("k"), Value: []byte("v"), PrevKv: true},
		pb.KV_Txn_FullMethodName:         &pb.TxnRequest{Success: []*pb.RequestOp{{Request: &pb.RequestOp_RequestRange{RequestRange: &pb.RangeRequest{Key: []byte("k")}}}}},
		pb.KV_DeleteRange_FullMethodName: &pb.DeleteRangeRequest{Key: []byte("none")},
	} {
		out := &emptypb.Empty{}
		var header, trailer metadata.MD
		ctx := metadata.AppendToOutgoingContext(t.Context(), "x-client", "c", "hasleader", "true")
		if err := conn.Invoke(ctx, method, in, out, grpc.Header(&header), grpc.Trailer(&trailer)); err != nil {
			t.Fatal(method, err)
		}
		last := n.last.Swap(nil)
		if last == nil {
			t.Errorf("%s: the shard did not see by whom it was asked", method)
			continue
		}
		if got := out.ProtoReflect().GetUnknown(); !bytes.Equal(got, last.answer) || !bytes.Contains(got, []byte("not known today")) {
			t.Errorf("%s: %d bytes, not the %d that were sent", method, len(got), len(last.answer))
		}
		if fmt.Sprint(header.Get("x-header")) != "[h1 h2]" || fmt.Sprint(trailer.Get("x-trailer-bin")) != "[\x00\x01]" {
			t.Errorf("%s: header %v, trailer %v", method, header, trailer)
		}
		if fmt.Sprint(last.seen.Get("x-client"), last.seen.Get("hasleader")) != "[c] [true]" {
			t.Errorf("%s: the shard saw %v", method, last.seen)
		}
	}
	// An error comes with its metadata, too.
	var header, trailer metadata.MD
	_, err := kv.Range(t.Context(), &pb.RangeRequest{Key: []byte("k"), Revision: 1 << 40}, grpc.Header(&header), grpc.Trailer(&trailer))
	if status.Code(err) != codes.OutOfRange || fmt.Sprint(header.Get("x-header"), trailer.Get("x-trailer-bin")) != "[h1 h2] [\x00\x01]" {
		t.Errorf("%v, header %v, trailer %v", err, header, trailer)
	}
}

// The bytes of an answer are in buffers that are used again: nobody gets another's, however
// large they are, and whoever goes away in the middle.
func TestEveryClientGetsItsOwnBytes(t *testing.T) {
	t.Parallel()
	etcd := etcdtest.Start(t)
	r := start(t, fmt.Sprintf("[shards.a]\nendpoints = [%q]\n[routes]\n\"\" = \"a\"\n", etcd.Endpoint))
	conns := []*grpc.ClientConn{r.conn(), r.conn()}
	within(t, 30*time.Second, func() error { return put(r.client(), "ready") })
	value := func(client, size int) []byte { return bytes.Repeat([]byte{byte('a' + client)}, size) }
	var wg conc.WaitGroup
	for client := range 16 {
		wg.Go(func() {
			kv := pb.NewKVClient(conns[client%len(conns)])
			key := fmt.Appendf(nil, "own/%d", client)
			for round := range 30 {
				want := value(client, []int{0, 1, 100, 5000, 40_000, 300_000}[round%6])
				if _, err := kv.Put(t.Context(), &pb.PutRequest{Key: key, Value: want}); err != nil {
					t.Error(err)
					return
				}
				ctx, cancel := context.WithTimeout(t.Context(), time.Duration(rand.IntN(2000))*time.Microsecond)
				_, err := kv.Range(ctx, &pb.RangeRequest{Key: key}) // often too late
				cancel()
				if c := status.Code(err); err != nil && c != codes.DeadlineExceeded && c != codes.Canceled {
					t.Error(err)
				}
				got, err := kv.Range(t.Context(), &pb.RangeRequest{Key: key})
				if err != nil || len(got.Kvs) != 1 || !bytes.Equal(got.Kvs[0].Value, want) {
					t.Errorf("client %d, round %d: not its %d bytes: %v", client, round, len(want), err)
					return
				}
			}
		})
	}
	wg.Wait()
}

// A client that compresses, and one that names the content "proto", are answered in kind.
func TestContentTypesAndCompressionPass(t *testing.T) {
	t.Parallel()
	etcd := etcdtest.Start(t)
	r := start(t, fmt.Sprintf("[shards.a]\nendpoints = [%q]\n[routes]\n\"\" = \"a\"\n", etcd.Endpoint))
	kv := pb.NewKVClient(r.conn())
	within(t, 30*time.Second, func() error {
		_, err := kv.Put(t.Context(), &pb.PutRequest{Key: []byte("k"), Value: []byte(strings.Repeat("v", 10_000))})
		return err
	})
	for name, opt := range map[string]grpc.CallOption{"plain": grpc.EmptyCallOption{}, "gzip": grpc.UseCompressor("gzip"), "proto": grpc.CallContentSubtype("proto")} {
		got, err := kv.Range(t.Context(), &pb.RangeRequest{Key: []byte("k")}, opt)
		if err != nil || len(got.Kvs) != 1 || len(got.Kvs[0].Value) != 10_000 {
			t.Errorf("%s: %v, %v", name, got, err)
		}
	}
	if _, err := kv.Range(t.Context(), &pb.RangeRequest{}); err == nil || errors.Is(err, io.EOF) || !strings.Contains(err.Error(), "key is not provided") {
		t.Error("a request without a key:", err)
	}
}
