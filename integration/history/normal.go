package history

import (
	"google.golang.org/protobuf/proto"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
)

// bare is a reply without headers: the outermost is checked on its own, and nested ones
// are the business of whoever compares reply by reply.
func bare(reply proto.Message) proto.Message {
	reply = proto.Clone(reply)
	switch r := reply.(type) {
	case *pb.RangeResponse:
		r.Header = nil
	case *pb.PutResponse:
		r.Header = nil
	case *pb.DeleteRangeResponse:
		r.Header = nil
	case *pb.CompactionResponse:
		r.Header = nil
	case *pb.TxnResponse:
		bareTxn(r)
	}
	return reply
}

func bareTxn(r *pb.TxnResponse) {
	r.Header = nil
	for _, op := range r.Responses {
		switch o := op.Response.(type) {
		case *pb.ResponseOp_ResponseRange:
			o.ResponseRange.Header = nil
		case *pb.ResponseOp_ResponsePut:
			o.ResponsePut.Header = nil
		case *pb.ResponseOp_ResponseDeleteRange:
			o.ResponseDeleteRange.Header = nil
		case *pb.ResponseOp_ResponseTxn:
			bareTxn(o.ResponseTxn)
		}
	}
}

// wrote tells whether a reply says that something was written.
func wrote(reply proto.Message) bool {
	switch r := reply.(type) {
	case *pb.PutResponse:
		return true
	case *pb.DeleteRangeResponse:
		return r.Deleted > 0
	case *pb.TxnResponse:
		for _, op := range r.Responses {
			if op.GetResponsePut() != nil || op.GetResponseDeleteRange().GetDeleted() > 0 || op.GetResponseTxn() != nil && wrote(op.GetResponseTxn()) {
				return true
			}
		}
	}
	return false
}
