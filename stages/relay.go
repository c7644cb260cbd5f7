package stages

import (
	"context"
	"errors"
	"io"

	"github.com/sourcegraph/conc"
	"google.golang.org/grpc"
	"google.golang.org/grpc/metadata"
	"google.golang.org/protobuf/types/known/emptypb"
)

// Relay serves RPCs by one shard, message by message and unread: for the services a
// chain with one shard has nothing to add to (Auth, Cluster, Maintenance, election,
// lock). The client's metadata goes to the shard; the shard's header, messages, status
// and trailer come back.
//
// Handle is a grpc.StreamHandler for grpc.UnknownServiceHandler; Pass is for calls that
// need a context of their own. Wait is called when
// the gRPC server has stopped.
type Relay struct {
	shard *Shard
	pumps conc.WaitGroup // client to shard, one for each call
}

// NewRelay makes a relay to a shard.
func NewRelay(shard *Shard) *Relay { return &Relay{shard: shard} }

// Wait returns when the last pump has ended.
func (r *Relay) Wait() { r.pumps.Wait() }

// Handle serves one call, unary or streaming, as the client.
func (r *Relay) Handle(_ any, client grpc.ServerStream) error {
	return r.Pass(ForwardMetadata(client.Context()), client)
}

// Pass serves one call under a context made from the client's, whose outgoing metadata the
// shard sees. A message is read as an empty one whose unknown fields are everything, and
// written so: nothing is lost and nothing decoded.
func (r *Relay) Pass(ctx context.Context, client grpc.ServerStream) error {
	method, _ := grpc.MethodFromServerStream(client)
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	shard, err := r.shard.Conn.NewStream(ctx, &grpc.StreamDesc{ServerStreams: true, ClientStreams: true}, method)
	if err != nil {
		return ErrorStatus(&ShardError{Shard: r.shard, Err: err})
	}
	// The pump can't be waited for here: RecvMsg returns when this handler has.
	r.pumps.Go(func() { pump(client, shard) })
	if err := r.downstream(client, shard); !errors.Is(err, io.EOF) {
		return ErrorStatus(&ShardError{Shard: r.shard, Err: err})
	}
	return nil
}

// Ask makes one unary call whose request has been read, under a context as for Pass. The
// shard's header and trailer go to the client; the reply is the caller's to send.
func (r *Relay) Ask(ctx context.Context, client grpc.ServerStream, req *emptypb.Empty) (*emptypb.Empty, error) {
	method, _ := grpc.MethodFromServerStream(client)
	var header, trailer metadata.MD
	reply := &emptypb.Empty{}
	err := r.shard.Conn.Invoke(ctx, method, req, reply, grpc.Header(&header), grpc.Trailer(&trailer))
	client.SetTrailer(withoutTransport(trailer))
	if err == nil {
		err = client.SetHeader(withoutTransport(header))
	}
	if err != nil {
		return nil, &ShardError{Shard: r.shard, Err: err}
	}
	return reply, nil
}

// pump passes on what the client says, until it has said all, or the call has ended:
// then the handler tells the client how.
func pump(client grpc.ServerStream, shard grpc.ClientStream) {
	for {
		m := &emptypb.Empty{}
		switch err := client.RecvMsg(m); {
		case errors.Is(err, io.EOF):
			_ = shard.CloseSend()
			return
		case err != nil:
			return
		}
		if shard.SendMsg(m) != nil {
			return
		}
	}
}

// downstream passes on what the shard says; io.EOF means that it has said all.
func (r *Relay) downstream(client grpc.ServerStream, shard grpc.ClientStream) error {
	header, err := shard.Header()
	if err != nil {
		return err
	}
	if err := client.SetHeader(withoutTransport(header)); err != nil {
		return err
	}
	defer func() { client.SetTrailer(withoutTransport(shard.Trailer())) }()
	for {
		m := &emptypb.Empty{}
		if err := shard.RecvMsg(m); err != nil {
			return err
		}
		if err := client.SendMsg(m); err != nil {
			return err
		}
	}
}
