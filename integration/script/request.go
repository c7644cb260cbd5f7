package script

import (
	"fmt"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
)

// sortTargets and sortOrders are the words of get's options.
var (
	sortTargets = map[string]pb.RangeRequest_SortTarget{
		"": pb.RangeRequest_KEY, "key": pb.RangeRequest_KEY, "version": pb.RangeRequest_VERSION,
		"create": pb.RangeRequest_CREATE, "mod": pb.RangeRequest_MOD, "value": pb.RangeRequest_VALUE,
	}
	sortOrders = map[string]pb.RangeRequest_SortOrder{
		"": pb.RangeRequest_NONE, "asc": pb.RangeRequest_ASCEND, "desc": pb.RangeRequest_DESCEND,
	}
	operators = map[string]pb.Compare_CompareResult{
		"=": pb.Compare_EQUAL, "!=": pb.Compare_NOT_EQUAL, "<": pb.Compare_LESS, ">": pb.Compare_GREATER,
	}
)

// rangeRequest makes get's request.
func rangeRequest(a *args) *pb.RangeRequest {
	key, end := a.keys()
	r := &pb.RangeRequest{
		Key: key, RangeEnd: end, Limit: a.number("limit"), Revision: a.number("rev"),
		Serializable: a.flag("serializable"), KeysOnly: a.flag("keys-only"), CountOnly: a.flag("count-only"),
		MinModRevision: a.number("min-mod"), MaxModRevision: a.number("max-mod"),
		MinCreateRevision: a.number("min-create"), MaxCreateRevision: a.number("max-create"),
	}
	target, order := a.opt("sort"), a.opt("order")
	var ok bool
	if r.SortTarget, ok = sortTargets[target]; !ok {
		fail("no sort target %q", target)
	}
	if r.SortOrder, ok = sortOrders[order]; !ok {
		fail("no order %q", order)
	}
	a.done()
	return r
}

// putRequest makes put's request.
func putRequest(a *args) *pb.PutRequest {
	r := &pb.PutRequest{
		Key: a.next("a key").Value(), Lease: a.lease("lease"), PrevKv: a.flag("prev-kv"),
		IgnoreValue: a.flag("ignore-value"), IgnoreLease: a.flag("ignore-lease"),
	}
	if len(a.words) > 0 || !r.IgnoreValue {
		r.Value = a.next("a value").Value()
	}
	a.done()
	return r
}

// deleteRequest makes del's request.
func deleteRequest(a *args) *pb.DeleteRangeRequest {
	key, end := a.keys()
	r := &pb.DeleteRangeRequest{Key: key, RangeEnd: end, PrevKv: a.flag("prev-kv")}
	a.done()
	return r
}

// txnRequest makes txn's request from the lines below it. Lines of a nested txn are
// indented further than the line that holds it.
func txnRequest(e *env, body []Indented) *pb.TxnRequest {
	r := &pb.TxnRequest{}
	for len(body) > 0 {
		line := body[0]
		n := 1
		for n < len(body) && body[n].Depth > line.Depth {
			n++
		}
		inner := body[1:n]
		body = body[n:]
		if len(line.Words) < 2 {
			fail("line %d: if, then or else with something", line.Line)
		}
		switch head := line.Words[0].Text; head {
		case "if":
			r.Compare = append(r.Compare, compare(newArgs(e, line.Words[1:])))
		case "then":
			if line.Words[1].Text == "fill" {
				r.Success = append(r.Success, fillOps(newArgs(e, line.Words[2:]))...)
				continue
			}
			r.Success = append(r.Success, requestOp(e, line.Words[1:], inner))
		case "else":
			r.Failure = append(r.Failure, requestOp(e, line.Words[1:], inner))
		default:
			fail("line %d: %q is not if, then or else", line.Line, head)
		}
	}
	return r
}

// fillOps makes the puts of a fill.
func fillOps(a *args) (ops []*pb.RequestOp) {
	prefix, n, value := a.next("a prefix").Text, a.env.number(a.next("a number").Text), a.next("a value").Value()
	a.done()
	for i := range n {
		put := &pb.PutRequest{Key: fmt.Appendf(nil, "%s%04d", prefix, i), Value: value}
		ops = append(ops, &pb.RequestOp{Request: &pb.RequestOp_RequestPut{RequestPut: put}})
	}
	return ops
}

// requestOp makes one operation of a txn.
func requestOp(e *env, words []Word, inner []Indented) *pb.RequestOp {
	a := newArgs(e, words[1:])
	switch words[0].Text {
	case "put":
		return &pb.RequestOp{Request: &pb.RequestOp_RequestPut{RequestPut: putRequest(a)}}
	case "get":
		return &pb.RequestOp{Request: &pb.RequestOp_RequestRange{RequestRange: rangeRequest(a)}}
	case "del":
		return &pb.RequestOp{Request: &pb.RequestOp_RequestDeleteRange{RequestDeleteRange: deleteRequest(a)}}
	case "txn":
		return &pb.RequestOp{Request: &pb.RequestOp_RequestTxn{RequestTxn: txnRequest(e, inner)}}
	}
	fail("%q can't be part of a txn", words[0].Text)
	return nil
}

// compare makes one compare of a txn.
func compare(a *args) *pb.Compare {
	target := a.next("a target").Text
	c := &pb.Compare{}
	c.Key, c.RangeEnd = a.keys()
	op := a.next("an operator").Text
	result, ok := operators[op]
	if !ok {
		fail("no operator %q", op)
	}
	c.Result = result
	operand := a.next("an operand")
	switch target {
	case "value":
		c.Target, c.TargetUnion = pb.Compare_VALUE, &pb.Compare_Value{Value: operand.Value()}
	case "version":
		c.Target, c.TargetUnion = pb.Compare_VERSION, &pb.Compare_Version{Version: a.env.number(operand.Text)}
	case "create":
		c.Target, c.TargetUnion = pb.Compare_CREATE, &pb.Compare_CreateRevision{CreateRevision: a.env.number(operand.Text)}
	case "mod":
		c.Target, c.TargetUnion = pb.Compare_MOD, &pb.Compare_ModRevision{ModRevision: a.env.number(operand.Text)}
	case "lease":
		c.Target, c.TargetUnion = pb.Compare_LEASE, &pb.Compare_Lease{Lease: a.env.lease(operand.Text)}
	default:
		fail("no compare target %q", target)
	}
	a.done()
	return c
}

// watchRequest makes watch's request.
func watchRequest(a *args) *pb.WatchCreateRequest {
	key, end := a.keys()
	r := &pb.WatchCreateRequest{
		Key: key, RangeEnd: end, StartRevision: a.number("rev"), PrevKv: a.flag("prev-kv"),
		ProgressNotify: a.flag("progress-notify"), Fragment: a.flag("fragment"), WatchId: a.number("id"),
	}
	if a.flag("no-put") {
		r.Filters = append(r.Filters, pb.WatchCreateRequest_NOPUT)
	}
	if a.flag("no-delete") {
		r.Filters = append(r.Filters, pb.WatchCreateRequest_NODELETE)
	}
	a.done()
	return r
}
