package grpcproxy_test

import (
	"context"
	"fmt"
	"strings"
	"testing"

	"google.golang.org/grpc"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
)

// raw is a message as bytes, for what no generated type can say.
type raw struct{ bytes []byte }

// rawCodec sends and receives raw messages.
type rawCodec struct{}

func (rawCodec) Marshal(v any) ([]byte, error)      { return v.(*raw).bytes, nil }
func (rawCodec) Unmarshal(data []byte, v any) error { v.(*raw).bytes = data; return nil }
func (rawCodec) Name() string                       { return "proto" }

// malformed are transactions that are legal protobuf and make no sense.
var malformed = []struct {
	name string
	txn  *pb.TxnRequest
}{
	{"an empty operation", &pb.TxnRequest{Success: []*pb.RequestOp{{}}}},
	{"an empty operation that is not taken", &pb.TxnRequest{Failure: []*pb.RequestOp{{}}}},
	{"an empty comparison", &pb.TxnRequest{Compare: []*pb.Compare{{}}}},
	{"an empty put", &pb.TxnRequest{Success: []*pb.RequestOp{{Request: &pb.RequestOp_RequestPut{RequestPut: &pb.PutRequest{}}}}}},
	{"an empty range", &pb.TxnRequest{Success: []*pb.RequestOp{{Request: &pb.RequestOp_RequestRange{RequestRange: &pb.RangeRequest{}}}}}},
	{"an empty delete", &pb.TxnRequest{Success: []*pb.RequestOp{{Request: &pb.RequestOp_RequestDeleteRange{RequestDeleteRange: &pb.DeleteRangeRequest{}}}}}},
	{"an empty operation in a nested one", nested(&pb.TxnRequest{Success: []*pb.RequestOp{{}}})},
	{"an empty operation in a nested one in a nested one", nested(nested(&pb.TxnRequest{Failure: []*pb.RequestOp{{}}}))},
	{"an empty nested one", nested(&pb.TxnRequest{})},
	{"an unknown comparison", &pb.TxnRequest{Compare: []*pb.Compare{{Key: []byte("k"), Result: 77, Target: 77}}}},
	{"nothing", &pb.TxnRequest{}},
}

func nested(t *pb.TxnRequest) *pb.TxnRequest {
	return &pb.TxnRequest{Success: []*pb.RequestOp{{Request: &pb.RequestOp_RequestTxn{RequestTxn: t}}}}
}

// P01: what one client sends, whatever it is, is its own trouble.
func TestMalformedMessagesAreRefusedAndNothingDies(t *testing.T) {
	probe{
		fault: "the process ends: panic: unknown request",
		want:  []string{"a transaction with an empty operation: InvalidArgument: etcdserver: key not found", "afterwards: ok"},
		run: func(ctx context.Context, d *door) error {
			conn := d.conn()
			for _, m := range malformed {
				_, err := pb.NewKVClient(conn).Txn(ctx, m.txn)
				d.say("a transaction with %s: %s", m.name, failure(err))
			}
			for _, method := range methods {
				for _, text := range messages(method) {
					out := &raw{}
					err := conn.Invoke(ctx, method, &raw{[]byte(text)}, out, grpc.ForceCodec(rawCodec{}))
					d.say("%s with %q: %s", method, text, failure(err))
				}
			}
			for _, method := range []string{"/etcdserverpb.Watch/Watch", "/etcdserverpb.Lease/LeaseKeepAlive"} {
				for _, text := range []string{"", "\xff\xff\xff", "\x0a\x00", "\x1a\x00"} {
					d.say("%s with %q: %s", method, text, d.streamed(ctx, conn, method, text))
				}
			}
			_, err := d.client().Put(ctx, "k", "v")
			d.say("afterwards: %s", failure(err))
			return nil
		},
	}.check(t)
}

// methods are unary ones that take a message amiss, or don't know the message, and write
// nothing; one of them there is not, nor the service of another.
var methods = []string{
	"/etcdserverpb.KV/Range", "/etcdserverpb.KV/Put", "/etcdserverpb.KV/DeleteRange", "/etcdserverpb.KV/Compact",
	"/etcdserverpb.Lease/LeaseRevoke", "/etcdserverpb.Lease/LeaseTimeToLive",
	"/etcdserverpb.Auth/UserAdd", "/etcdserverpb.Auth/Authenticate", "/etcdserverpb.Auth/UserGet",
	"/etcdserverpb.Cluster/MemberRemove", "/etcdserverpb.Maintenance/MoveLeader",
	"/v3electionpb.Election/Resign", nowhere, "/etcdserverpb.KV/Shuffle",
}

const nowhere = "/etcdserverpb.Oracle/Ask"

// messages are for a method: none, one with a field that nobody knows, and two that are cut off.
func messages(method string) []string {
	all := []string{"", "\x92\x03\x03odd", "\xff\xff\xff", "\x0a\x01k\x0a"}
	if method == nowhere || strings.HasSuffix(method, "Shuffle") {
		return all[:2] // the others are refused as what they are not before they are refused as what they are
	}
	return all
}

// streamed sends a message on a stream, closes it and tells how often it is answered and how it
// ends.
func (d *door) streamed(ctx context.Context, conn *grpc.ClientConn, method, text string) string {
	s, err := conn.NewStream(ctx, &grpc.StreamDesc{ClientStreams: true, ServerStreams: true}, method, grpc.ForceCodec(rawCodec{}))
	if err != nil {
		return failure(err)
	}
	if err := s.SendMsg(&raw{[]byte(text)}); err != nil {
		return failure(err)
	}
	answers := 0
	ended := make(chan error, 1)
	got := make(chan struct{}, 100)
	go func() {
		for {
			if err := s.RecvMsg(&raw{}); err != nil {
				ended <- err
				return
			}
			got <- struct{}{}
		}
	}()
	quiet := after(silence)
	for asked := false; ; {
		select {
		case err := <-ended:
			for ; len(got) > 0; <-got {
				answers++
			}
			return fmt.Sprintf("%d answers, then %s", answers, failure(err))
		case <-got:
			answers++
			quiet = after(silence)
		case <-quiet:
			if asked && len(got) == 0 && len(ended) == 0 {
				return fmt.Sprintf("%d answers, and it is open", answers)
			}
			// It counts only if who was asked meanwhile has answered, since all may have stood still.
			if err := second(pb.NewKVClient(conn).Range(ctx, &pb.RangeRequest{Key: []byte("k")})); err != nil {
				return failure(err)
			}
			asked, quiet = true, after(silence/3)
		}
	}
}
