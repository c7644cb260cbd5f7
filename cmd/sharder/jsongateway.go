package main

import (
	"context"
	"errors"
	"io"
	"math"
	"net"
	"net/http"

	"github.com/grpc-ecosystem/grpc-gateway/v2/runtime"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/test/bufconn"
	"google.golang.org/protobuf/encoding/protojson"

	"go.etcd.io/etcd/api/v3/etcdserverpb/gw"
	electiongw "go.etcd.io/etcd/server/v3/etcdserver/api/v3election/v3electionpb/gw"
	lockgw "go.etcd.io/etcd/server/v3/etcdserver/api/v3lock/v3lockpb/gw"
)

// bodyRoom is how many times larger a request may be in JSON than in gRPC's form, which has no
// names and no base64: generous, so that it is gRPC's bound that clients meet, with etcd's answer.
// This one only keeps a request that never ends from becoming memory.
const bodyRoom = 8

// jsonGateway is the API in JSON, below /v3/: etcd's own translation, which calls a gRPC server
// of this process over a connection in memory. Whoever made one has that server serve inside,
// and closes conn when it has stopped.
type jsonGateway struct {
	inside *bufconn.Listener
	conn   *grpc.ClientConn
	mux    *runtime.ServeMux
	limit  int64 // of one request, in JSON
}

// insideBuffer is how much may be under way on the connection in memory, each way.
const insideBuffer = 256 << 10

// newJSONGateway makes a gateway with the options that etcd gives its own.
func newJSONGateway(maxRequest int) (*jsonGateway, error) {
	g := &jsonGateway{inside: bufconn.Listen(insideBuffer), limit: bodyRoom * int64(maxRequest+requestOverhead)}
	var err error
	g.conn, err = grpc.NewClient("passthrough:///sharder",
		grpc.WithContextDialer(func(ctx context.Context, _ string) (net.Conn, error) { return g.inside.DialContext(ctx) }),
		grpc.WithTransportCredentials(insecure.NewCredentials()),
		grpc.WithDefaultCallOptions(grpc.MaxCallRecvMsgSize(math.MaxInt32)))
	if err != nil {
		return nil, err
	}
	marshaler := &runtime.HTTPBodyMarshaler{
		Marshaler: &runtime.JSONPb{
			MarshalOptions:   protojson.MarshalOptions{UseProtoNames: true},
			UnmarshalOptions: protojson.UnmarshalOptions{DiscardUnknown: true},
		},
	}
	g.mux = runtime.NewServeMux(runtime.WithMarshalerOption(runtime.MIMEWildcard, bounded{marshaler, g.limit}))
	for _, register := range []func(context.Context, *runtime.ServeMux, *grpc.ClientConn) error{
		gw.RegisterKVHandler, gw.RegisterWatchHandler, gw.RegisterLeaseHandler,
		gw.RegisterClusterHandler, gw.RegisterMaintenanceHandler, gw.RegisterAuthHandler,
		lockgw.RegisterLockHandler, electiongw.RegisterElectionHandler,
	} {
		if err := register(context.Background(), g.mux, g.conn); err != nil {
			return nil, err
		}
	}
	return g, nil
}

// handler serves the gateway, and its streams to websockets too.
func (g *jsonGateway) handler() http.Handler { return websockets(g.mux, g.limit) }

// bounded is a marshaler that reads no request of more than limit bytes.
type bounded struct {
	runtime.Marshaler
	limit int64
}

// NewDecoder implements runtime.Marshaler. Of a stream each request has the bound.
func (b bounded) NewDecoder(r io.Reader) runtime.Decoder {
	budget := &budget{from: r}
	inner := b.Marshaler.NewDecoder(budget)
	return runtime.DecoderFunc(func(v any) error {
		budget.left = b.limit
		return inner.Decode(v)
	})
}

// budget is a reader that refuses to read on when what was left is used up.
type budget struct {
	from io.Reader
	left int64
}

// Read implements io.Reader.
func (b *budget) Read(p []byte) (int, error) {
	if b.left <= 0 {
		return 0, errors.New("sharder: the request is too large")
	}
	n, err := b.from.Read(p[:min(int64(len(p)), b.left)])
	b.left -= int64(n)
	return n, err
}
