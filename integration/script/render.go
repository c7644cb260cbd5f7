package script

import (
	"bytes"
	"fmt"
	"sort"
	"strconv"
	"strings"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	"go.etcd.io/etcd/api/v3/mvccpb"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"
)

// render gives the lines of any reply.
func (e *env) render(reply proto.Message, err error) []Line {
	if err != nil {
		s := status.Convert(err)
		// protobuf's own errors have a space that differs from binary to binary.
		text := strings.ReplaceAll(s.Message(), "\u00a0", " ")
		return []Line{{Words: []Word{word("error"), word(s.Code().String()), {Text: text, Quoted: true}}}}
	}
	switch r := reply.(type) {
	case *pb.RangeResponse:
		return e.rangeLines(r, 0)
	case *pb.PutResponse:
		return e.putLines(r, 0)
	case *pb.DeleteRangeResponse:
		return e.deleteLines(r, 0)
	case *pb.TxnResponse:
		return e.txnLines(r, 0)
	case *pb.CompactionResponse:
		return []Line{withRev(lineOf("ok"), r.Header)}
	case *pb.LeaseGrantResponse:
		l := Line{Words: []Word{word("granted"), named("ttl", r.TTL), named("lease", e.leases.name(r.ID))}}
		return []Line{withRev(l, r.Header)}
	case *pb.LeaseRevokeResponse:
		return []Line{withRev(lineOf("ok"), r.Header)}
	case *pb.LeaseKeepAliveResponse:
		l := Line{Words: []Word{word("alive"), named("ttl", r.TTL), named("lease", e.leases.name(r.ID))}}
		return []Line{withRev(l, r.Header)}
	case *pb.LeaseTimeToLiveResponse:
		return e.ttlLines(r)
	case *pb.LeaseLeasesResponse:
		return e.leasesLines(r)
	}
	return []Line{lineOf(fmt.Sprintf("%T", reply))}
}

// withRev adds the header's revision to a line. A reply without header says so:
// etcd always sends one.
func withRev(l Line, h *pb.ResponseHeader) Line {
	if h == nil {
		l.Words = append(l.Words, word("no-header"))
		return l
	}
	l.Words = append(l.Words, named("rev", h.Revision))
	return l
}

// kvLine is a key with all there is to know about it; first are the words in front.
func (e *env) kvLine(depth int, kv *mvccpb.KeyValue, first ...string) Line {
	l := lineOf(first...)
	l.Depth = depth
	l.Words = append(l.Words, Word{Text: string(kv.Key), Quoted: true}, showValue(kv.Value),
		named("version", kv.Version), named("create", kv.CreateRevision), named("mod", kv.ModRevision),
		named("lease", e.leases.name(kv.Lease)))
	return l
}

// rangeLines are a get's: the keys, then the count.
func (e *env) rangeLines(r *pb.RangeResponse, depth int) []Line {
	var lines []Line
	for _, kv := range r.Kvs {
		lines = append(lines, e.kvLine(depth, kv))
	}
	last := lineOf("count", strconv.FormatInt(r.Count, 10))
	last.Depth = depth
	if r.More {
		last.Words = append(last.Words, word("more"))
	}
	if depth == 0 {
		last = withRev(last, r.Header)
	}
	return append(lines, last)
}

// putLines are a put's.
func (e *env) putLines(r *pb.PutResponse, depth int) []Line {
	l := lineOf("ok")
	l.Depth = depth
	lines := []Line{withRev(l, r.Header)}
	if r.PrevKv != nil {
		lines = append(lines, e.kvLine(depth, r.PrevKv, "prev"))
	}
	return lines
}

// deleteLines are a del's.
func (e *env) deleteLines(r *pb.DeleteRangeResponse, depth int) []Line {
	l := lineOf("deleted", strconv.FormatInt(r.Deleted, 10))
	l.Depth = depth
	lines := []Line{withRev(l, r.Header)}
	for _, kv := range r.PrevKvs {
		lines = append(lines, e.kvLine(depth, kv, "prev"))
	}
	return lines
}

// txnLines are a txn's: which branch, and its answers one step further in.
func (e *env) txnLines(r *pb.TxnResponse, depth int) []Line {
	l := lineOf("failed")
	if r.Succeeded {
		l = lineOf("succeeded")
	}
	l.Depth = depth
	if depth == 0 {
		l = withRev(l, r.Header)
	}
	lines := []Line{l}
	for _, op := range r.Responses {
		switch o := op.Response.(type) {
		case *pb.ResponseOp_ResponseRange:
			lines = append(lines, e.rangeLines(o.ResponseRange, depth+1)...)
		case *pb.ResponseOp_ResponsePut:
			lines = append(lines, e.putLines(o.ResponsePut, depth+1)...)
		case *pb.ResponseOp_ResponseDeleteRange:
			lines = append(lines, e.deleteLines(o.ResponseDeleteRange, depth+1)...)
		case *pb.ResponseOp_ResponseTxn:
			lines = append(lines, e.txnLines(o.ResponseTxn, depth+1)...)
		default:
			lines = append(lines, Line{Depth: depth + 1, Words: []Word{word("nothing")}})
		}
	}
	return lines
}

// ttlLines are a ttl's: what was granted and what is left, then the keys, sorted,
// for etcd gives them in no order.
func (e *env) ttlLines(r *pb.LeaseTimeToLiveResponse) []Line {
	state := "alive"
	if r.TTL <= 0 {
		state = "gone"
	}
	l := Line{Words: []Word{word(state), named("granted", r.GrantedTTL), named("remaining", r.TTL), named("lease", e.leases.name(r.ID))}}
	lines := []Line{withRev(l, r.Header)}
	sort.Slice(r.Keys, func(i, j int) bool { return bytes.Compare(r.Keys[i], r.Keys[j]) < 0 })
	for _, k := range r.Keys {
		lines = append(lines, Line{Words: []Word{word("key"), {Text: string(k), Quoted: true}}})
	}
	return lines
}

// leasesLines are a leases': how many and which, sorted by name.
func (e *env) leasesLines(r *pb.LeaseLeasesResponse) []Line {
	var names []string
	for _, s := range r.Leases {
		names = append(names, e.leases.name(s.ID))
	}
	sort.Strings(names)
	lines := []Line{withRev(lineOf("leases", strconv.Itoa(len(names))), r.Header)}
	for _, n := range names {
		lines = append(lines, lineOf("lease", n))
	}
	return lines
}

// eventLines are one event: what happened, and what was there before if it was
// asked for.
func (e *env) eventLines(ev *mvccpb.Event) []Line {
	var lines []Line
	if ev.Type == mvccpb.Event_DELETE {
		l := Line{Words: []Word{word("DELETE"), {Text: string(ev.Kv.Key), Quoted: true}, named("mod", ev.Kv.ModRevision)}}
		lines = append(lines, l)
	} else {
		lines = append(lines, e.kvLine(0, ev.Kv, "PUT"))
	}
	if ev.PrevKv != nil {
		lines = append(lines, e.kvLine(0, ev.PrevKv, "prev"))
	}
	return lines
}
