package script

import (
	"encoding/hex"
	"fmt"
	"strings"

	"google.golang.org/grpc"
	"google.golang.org/protobuf/encoding/prototext"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"
	"google.golang.org/protobuf/reflect/protoregistry"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
)

// method finds a unary method of etcd's API by SERVICE/METHOD, with empty messages
// for both directions.
func method(name string) (path string, in, out proto.Message) {
	service, m, _ := strings.Cut(name, "/")
	sd := pb.File_rpc_proto.Services().ByName(protoreflect.Name(service))
	if sd == nil {
		fail("no service %s", service)
	}
	md := sd.Methods().ByName(protoreflect.Name(m))
	if md == nil || md.IsStreamingClient() || md.IsStreamingServer() {
		fail("no unary method %s", name)
	}
	return fmt.Sprintf("/%s/%s", sd.FullName(), m), message(md.Input()), message(md.Output())
}

// message makes an empty message.
func message(d protoreflect.MessageDescriptor) proto.Message {
	t, err := protoregistry.GlobalTypes.FindMessageByName(d.FullName())
	if err != nil {
		fail("%v", err)
	}
	return t.New().Interface()
}

func doRaw(c *call) []Line {
	path, in, out := method(c.st.Words[1].Text)
	if err := prototext.Unmarshal([]byte(c.st.Rest), in); err != nil {
		fail("%v", err)
	}
	err := c.env.conn.Invoke(c.ctx, path, in, out)
	return reply(c, out, err)
}

func doBytes(c *call) []Line {
	path, _, out := method(c.st.Words[1].Text)
	payload, err := hex.DecodeString(strings.ReplaceAll(c.st.Rest, " ", ""))
	if err != nil {
		fail("%v", err)
	}
	err = c.env.conn.Invoke(c.ctx, path, payload, out, grpc.ForceCodec(bytesCodec{}))
	return reply(c, out, err)
}

// bytesCodec sends bytes as they are and reads messages as usual.
type bytesCodec struct{}

// Marshal passes the bytes on.
func (bytesCodec) Marshal(v any) ([]byte, error) { return v.([]byte), nil }

// Unmarshal decodes a message.
func (bytesCodec) Unmarshal(data []byte, v any) error {
	return proto.Unmarshal(data, v.(proto.Message))
}

// Name makes the request look like any other.
func (bytesCodec) Name() string { return "proto" }
