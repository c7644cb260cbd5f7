package stages_test

import (
	"testing"

	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"

	"github.com/sharder/sharder/stages"
	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"
)

// operations is a Txn with so many puts.
func operations(n int) *pb.TxnRequest {
	t := &pb.TxnRequest{}
	for range n {
		t.Success = append(t.Success, putOp("a", "1"))
	}
	return t
}

func nested(t *pb.TxnRequest) *pb.RequestOp {
	return &pb.RequestOp{Request: &pb.RequestOp_RequestTxn{RequestTxn: t}}
}

func TestOperationsAreCountedAsByEtcd(t *testing.T) {
	noKey := &pb.TxnRequest{Success: []*pb.RequestOp{putOp("", "")}}
	for name, c := range map[string]struct {
		txn  *pb.TxnRequest
		want error
	}{
		"just enough":                       {operations(128), nil},
		"too many":                          {operations(129), rpctypes.ErrGRPCTooManyOps},
		"too many compares":                 {&pb.TxnRequest{Compare: make([]*pb.Compare, 129)}, rpctypes.ErrGRPCTooManyOps},
		"nested gets what is left":          {&pb.TxnRequest{Failure: []*pb.RequestOp{nested(operations(127))}}, nil},
		"nested gets no more":               {&pb.TxnRequest{Failure: []*pb.RequestOp{nested(operations(128))}}, rpctypes.ErrGRPCTooManyOps},
		"the number comes before the keys":  {&pb.TxnRequest{Success: append(operations(128).Success, putOp("", ""))}, rpctypes.ErrGRPCTooManyOps},
		"a key before the number nested":    {&pb.TxnRequest{Success: []*pb.RequestOp{nested(noKey), nested(operations(128))}}, rpctypes.ErrGRPCEmptyKey},
		"the number nested before a key":    {&pb.TxnRequest{Success: []*pb.RequestOp{nested(operations(128)), nested(noKey)}}, rpctypes.ErrGRPCTooManyOps},
		"what a shard would say is its own": {&pb.TxnRequest{Success: operations(2).Success}, nil},
	} {
		_, err := stages.Decoder{MaxTxnOps: 128}.Txn(t.Context(), c.txn)
		if status.Convert(err).Message() != status.Convert(c.want).Message() {
			t.Errorf("%s: %v, want %v", name, err, c.want)
		}
	}
	if _, err := (stages.Decoder{}).Txn(t.Context(), operations(1000)); err != nil {
		t.Errorf("without a limit: %v", err)
	}
}

func TestWritesAreMeasuredAsByEtcd(t *testing.T) {
	d := stages.Decoder{MaxRequestBytes: 1000}
	large := &pb.PutRequest{Key: []byte("a"), Value: make([]byte, 1000)}
	fits := &pb.PutRequest{Key: []byte("a"), Value: make([]byte, 950)}
	put := func(r *pb.PutRequest) *pb.RequestOp {
		return &pb.RequestOp{Request: &pb.RequestOp_RequestPut{RequestPut: r}}
	}
	long := &pb.RangeRequest{Key: make([]byte, 2000)}
	for name, c := range map[string]struct {
		req   proto.Message
		large bool
	}{
		"a put":                     {large, true},
		"a smaller put":             {fits, false},
		"a delete":                  {&pb.DeleteRangeRequest{Key: make([]byte, 1000)}, true},
		"a put in a Txn":            {&pb.TxnRequest{Failure: []*pb.RequestOp{nested(&pb.TxnRequest{Success: []*pb.RequestOp{put(large)}})}}, true},
		"a smaller put in a Txn":    {&pb.TxnRequest{Success: []*pb.RequestOp{put(fits)}}, false},
		"a Txn that writes nothing": {&pb.TxnRequest{Success: []*pb.RequestOp{{Request: &pb.RequestOp_RequestRange{RequestRange: long}}}}, false},
	} {
		var err error
		switch r := c.req.(type) {
		case *pb.PutRequest:
			_, err = d.Put(t.Context(), r)
		case *pb.DeleteRangeRequest:
			_, err = d.DeleteRange(t.Context(), r)
		case *pb.TxnRequest:
			_, err = d.Txn(t.Context(), r)
		}
		if tooLarge := err != nil && status.Convert(err).Message() == "etcdserver: request is too large"; tooLarge != c.large {
			t.Errorf("%s: %v", name, err)
		}
	}
}
