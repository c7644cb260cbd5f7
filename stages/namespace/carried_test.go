package namespace

import (
	"slices"
	"testing"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	"go.etcd.io/etcd/api/v3/mvccpb"
)

// fill gives every field of a message a value: a number of its own, "k" as bytes, two of
// what repeats. Of a oneof it sets the one that pick names, or the last.
func fill(m protoreflect.Message, pick string, depth int) {
	fields := m.Descriptor().Fields()
	for i := range fields.Len() {
		f := fields.Get(i)
		if o := f.ContainingOneof(); o != nil && o.Fields().ByName(protoreflect.Name(pick)) != nil && string(f.Name()) != pick {
			continue
		}
		switch {
		case f.IsList() && depth > 0:
			list := m.Mutable(f).List()
			for range 2 {
				if f.Message() != nil {
					fill(list.AppendMutable().Message(), pick, depth-1)
				} else {
					list.Append(scalar(f, i))
				}
			}
		case f.IsList():
		case f.Message() != nil:
			fill(m.Mutable(f).Message(), pick, depth-1)
		default:
			m.Set(f, scalar(f, i))
		}
	}
}

func scalar(f protoreflect.FieldDescriptor, i int) protoreflect.Value {
	switch f.Kind() {
	case protoreflect.BytesKind:
		return protoreflect.ValueOfBytes([]byte("k"))
	case protoreflect.BoolKind:
		return protoreflect.ValueOfBool(true)
	case protoreflect.EnumKind:
		return protoreflect.ValueOfEnum(1)
	case protoreflect.StringKind:
		return protoreflect.ValueOfString("text")
	case protoreflect.Uint64Kind:
		return protoreflect.ValueOfUint64(uint64(i + 1))
	}
	return protoreflect.ValueOfInt64(int64(i + 1))
}

// below changes a message as a namespace should, by the names of its fields: so a field that
// etcd adds, and this package does not carry, is one that differs.
func below(n *Namespace, m protoreflect.Message) {
	m.Range(func(f protoreflect.FieldDescriptor, v protoreflect.Value) bool {
		switch {
		case f.IsList() && f.Message() != nil:
			for i := range v.List().Len() {
				below(n, v.List().Get(i).Message())
			}
		case f.IsList():
		case f.Message() != nil:
			below(n, v.Message())
		case slices.Contains([]protoreflect.Name{"key", "range_end"}, f.Name()):
			m.Set(f, protoreflect.ValueOfBytes(n.prefixed(v.Bytes())))
		case f.Name() == "lease":
			m.Set(f, protoreflect.ValueOfInt64(n.leases.below(v.Int())))
		}
		return true
	})
}

// whole is a message with all fields set, and the same as it is below.
func whole[M proto.Message](n *Namespace, pick string) (up, down M) {
	var zero M
	m := zero.ProtoReflect().New()
	fill(m, pick, 3)
	up = m.Interface().(M)
	down = proto.Clone(up).(M)
	below(n, down.ProtoReflect())
	return up, down
}

func same(t *testing.T, what string, have, want proto.Message) {
	t.Helper()
	if !proto.Equal(have, want) {
		t.Errorf("%s:\nhave %v\nwant %v", what, have, want)
	}
}

// request checks one kind of request, and that the client's stays as it was.
func request[M proto.Message](t *testing.T, n *Namespace, pick string, translate func(M) M) {
	t.Helper()
	up, down := whole[M](n, pick)
	before := proto.Clone(up)
	same(t, "request "+pick, translate(up), down)
	same(t, "the client's "+pick, up, before)
}

// response checks one kind of answer, and that below's stays as it was.
func response[M proto.Message](t *testing.T, n *Namespace, pick string, translate func(M) (M, error)) {
	t.Helper()
	up, down := whole[M](n, pick)
	before := proto.Clone(down)
	got, err := translate(down)
	if err != nil {
		t.Fatal(err)
	}
	same(t, "answer "+pick, got, up)
	same(t, "below's "+pick, down, before)
}

// TestEveryFieldOfEtcdsMessagesIsCarried fills every field there is in etcd's messages: what
// etcd adds in another version is told here, and nothing is lost in silence.
func TestEveryFieldOfEtcdsMessagesIsCarried(t *testing.T) {
	n := New([]byte("p/"))
	request(t, n, "range", n.rangeRequest)
	request(t, n, "put", n.putRequest)
	request(t, n, "delete", n.deleteRequest)
	for _, pick := range []string{"request_range", "request_put", "request_delete_range", "request_txn"} {
		request(t, n, pick, n.txnRequest)
	}
	for _, pick := range []string{"version", "create_revision", "mod_revision", "value"} {
		request(t, n, pick, n.compare)
	}
	for _, pick := range []string{"create_request", "cancel_request", "progress_request"} {
		request(t, n, pick, n.watchRequest)
	}
	response(t, n, "range", n.rangeResponse)
	response(t, n, "put", n.putResponse)
	response(t, n, "delete", n.deleteResponse)
	for _, pick := range []string{"response_range", "response_put", "response_delete_range", "response_txn"} {
		response(t, n, pick, n.txnResponse)
	}
	response(t, n, "watch", n.watchResponse)
}

// What this package does not know might name keys: it does not get below.
func TestAFieldThatIsNotKnownDoesNotGetBelow(t *testing.T) {
	n := New([]byte("p/"))
	unknown := protoreflect.RawFields("\xfa\x3f\x03abc") // field 1023, three bytes
	r := &pb.RangeRequest{Key: []byte("k")}
	r.ProtoReflect().SetUnknown(unknown)
	op := &pb.RequestOp{}
	op.ProtoReflect().SetUnknown(unknown)
	w := &pb.WatchRequest{RequestUnion: &pb.WatchRequest_CreateRequest{CreateRequest: &pb.WatchCreateRequest{Key: []byte("k")}}}
	w.GetCreateRequest().ProtoReflect().SetUnknown(unknown)
	strange := &pb.WatchRequest{}
	strange.ProtoReflect().SetUnknown(unknown)
	for _, got := range []proto.Message{n.rangeRequest(r), n.op(op), n.watchRequest(w).GetCreateRequest(), n.watchRequest(strange)} {
		if u := got.ProtoReflect().GetUnknown(); len(u) > 0 {
			t.Errorf("%T has %q below", got, u)
		}
	}
}

// Whatever a shard answers, a client is not shown a key that is not the namespace's.
func TestAnAnswerWithAnotherKeyIsNoAnswer(t *testing.T) {
	n := New([]byte("p/"))
	for _, key := range []string{"q/a", "p/", "p", "", "\x00sharder/stamp"} {
		kv := &mvccpb.KeyValue{Key: []byte(key)}
		good := &mvccpb.KeyValue{Key: []byte("p/a")}
		_, e1 := n.rangeResponse(&pb.RangeResponse{Kvs: []*mvccpb.KeyValue{good, kv}})
		_, e2 := n.putResponse(&pb.PutResponse{PrevKv: kv})
		_, e3 := n.deleteResponse(&pb.DeleteRangeResponse{PrevKvs: []*mvccpb.KeyValue{kv}})
		_, e4 := n.watchResponse(&pb.WatchResponse{Events: []*mvccpb.Event{{Kv: good, PrevKv: kv}}})
		_, e5 := n.watchResponse(&pb.WatchResponse{Events: []*mvccpb.Event{{Kv: kv}}})
		_, e6 := n.txnResponse(&pb.TxnResponse{Responses: []*pb.ResponseOp{{Response: &pb.ResponseOp_ResponsePut{ResponsePut: &pb.PutResponse{PrevKv: kv}}}}})
		for i, err := range []error{e1, e2, e3, e4, e5, e6} {
			if err == nil {
				t.Errorf("%d: %q went through", i, key)
			}
		}
	}
}

// Nothing that a client can send makes a panic.
func TestNilInsideARequestIsCarried(t *testing.T) {
	n := New([]byte("p/"))
	ops := []*pb.RequestOp{
		nil, {}, {Request: &pb.RequestOp_RequestRange{}}, {Request: &pb.RequestOp_RequestPut{}},
		{Request: &pb.RequestOp_RequestDeleteRange{}}, {Request: &pb.RequestOp_RequestTxn{}},
	}
	got := n.txnRequest(&pb.TxnRequest{Compare: []*pb.Compare{nil, {}, {Target: pb.Compare_LEASE}}, Success: ops, Failure: ops})
	if len(got.Compare) != 3 || len(got.Success) != len(ops) || len(got.Failure) != len(ops) {
		t.Errorf("have %v", got)
	}
	n.watchRequest(nil)
	n.watchRequest(&pb.WatchRequest{RequestUnion: &pb.WatchRequest_CreateRequest{}})
}
