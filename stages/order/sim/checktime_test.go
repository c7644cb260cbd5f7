package sim

import (
	"fmt"
	"strings"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"
	"go.etcd.io/etcd/server/v3/etcdserver/txn"
)

// time checks real time: who began after another had ended is not told of an older
// moment, and a write is told of a newer one. Serializable reads may be old, but never
// of the future, nor older than what the same sharder has told before, unless they are of
// the moment before a batch, which had not come to all its shards yet.
func (c *check) time() error {
	for _, b := range c.w.history.all {
		if b.err != nil {
			continue
		}
		g := headerOf(b.resp).Revision
		for _, a := range c.w.history.all {
			if a.err != nil || a == b {
				continue
			}
			before := headerOf(a.resp).Revision
			switch {
			case a.end < b.start && !serializable(b.req) && (g < before || wrote(b.resp) && g == before):
				return fmt.Errorf("real time: revision %d after %d:\n%v\n%v", g, before, a, b)
			case a.end < b.start && isRange(b.req) && a.sharder == b.sharder && g < before && !(serializable(b.req) && c.batches.revisions[g+1]):
				return fmt.Errorf("%s went back in time:\n%v\n%v", b.sharder, a, b)
			case a.start > b.end && wrote(a.resp) && g >= before:
				return fmt.Errorf("a read of the future:\n%v\n%v", a, b)
			}
		}
	}
	return nil
}

func isRange(req proto.Message) bool {
	_, ok := req.(*pb.RangeRequest)
	return ok
}

// past is the newest revision that somebody was told before a request began.
func (c *check) past(r *record) int64 {
	most := c.base
	for _, a := range c.w.history.all {
		if a.err == nil && a.end < r.start {
			most = max(most, headerOf(a.resp).Revision)
		}
	}
	return most
}

// errors checks that each error was true at some moment of the call, and that there is
// none without a reason.
func (c *check) errors() error {
	for _, r := range c.w.history.all {
		var err error
		switch {
		case r.client == strange && mayWrite(r.req):
			if r.err == nil && c.wasGuarded(r) {
				err = fmt.Errorf("a sharder with other routes wrote: %v", r)
			}
		case r.err == nil:
		case isError(r.err, errNotFound):
			err = c.notFound(r)
		case isError(r.err, errNoLease):
			err = c.leaseNotFound(r)
		case isError(r.err, errCompacted):
			err = c.compacted(r)
		case isError(r.err, errFuture):
			if asked := revisions(r.req); len(asked) == 0 || maxOf(asked) <= c.past(r) {
				err = fmt.Errorf("not a future revision: %v", r)
			}
		case ambiguous(r.err):
			// The sharder with other routes may roll others' batches back, and those that
			// wait too long give themselves up.
			undone := isWide(r.req) && (c.w.plan.stranger || c.w.plan.weather.slow > 0)
			if c.w.plan.calm() && !swept(r.err) && !undone && (c.w.plan.weather.slow == 0 || status.Code(r.err) != codes.DeadlineExceeded) {
				err = fmt.Errorf("failed although all was well: %v", r)
			}
		case status.Code(r.err) == codes.FailedPrecondition && r.client == strange:
		default:
			err = fmt.Errorf("an error that can't be: %v", r)
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// wasGuarded tells whether a request that was answered must have met the guard of a shard: it
// was not one of a batch, which others may do, or that is found to write nothing.
func (c *check) wasGuarded(r *record) bool {
	if _, isTxn := r.req.(*pb.TxnRequest); isTxn && !wrote(r.resp) {
		return false
	}
	return !c.batches.revisions[headerOf(r.resp).Revision]
}

// swept tells that a write could not be told its revisions, as a sweep was faster, or what it
// read, as a compaction was.
func swept(err error) bool {
	text := status.Convert(err).Message()
	return strings.HasSuffix(text, "compacted before the answer came") || strings.HasSuffix(text, "but there is no answer: "+rpctypes.ErrorDesc(errCompacted))
}

// mayWrite tells whether a request is one that shards have to be asked for with a guard.
func mayWrite(req proto.Message) bool {
	switch r := req.(type) {
	case *pb.PutRequest, *pb.DeleteRangeRequest:
		return true
	case *pb.TxnRequest:
		return !txn.IsTxnReadonly(r)
	}
	return false
}

// notFound checks that the key was absent at some moment of the call.
func (c *check) notFound(r *record) error {
	p, ok := r.req.(*pb.PutRequest)
	if !ok || !p.IgnoreValue {
		return fmt.Errorf("not found, and not asked for: %v", r)
	}
	low, high := c.past(r), c.top
	for _, a := range c.w.history.all {
		if a.err == nil && a.start > r.end && !serializable(a.req) {
			g := headerOf(a.resp).Revision
			if wrote(a.resp) {
				g--
			}
			high = min(high, g)
		}
	}
	there := false
	for g := c.base; g <= high; g++ {
		for _, kv := range c.events[g] {
			if string(kv.Key) == string(p.Key) {
				there = kv.CreateRevision > 0
			}
		}
		if g >= low && !there {
			return nil
		}
	}
	return fmt.Errorf("the key was there all the time, at %d to %d: %v", low, high, r)
}

// compacted checks that somebody had asked for a compaction that high.
func (c *check) compacted(r *record) error {
	asked := revisions(r.req)
	if len(asked) == 0 {
		return fmt.Errorf("compacted, and no revision was asked for: %v", r)
	}
	_, compaction := r.req.(*pb.CompactionRequest)
	if asked[0] < c.gone || compaction && asked[0] <= c.gone {
		return nil
	}
	for _, a := range c.w.history.all {
		q, ok := a.req.(*pb.CompactionRequest)
		if ok && a.start < r.end && (a.err == nil || ambiguous(a.err)) && (q.Revision > asked[0] || compaction && q.Revision == asked[0]) {
			return nil
		}
	}
	if compaction && asked[0] <= 0 {
		return nil
	}
	return fmt.Errorf("not compacted: %v", r)
}

// revisions are those that a request asks for, not those it compares with.
func revisions(req proto.Message) (all []int64) {
	switch r := req.(type) {
	case *pb.CompactionRequest:
		return []int64{r.Revision}
	case *pb.RangeRequest:
		if r.Revision > 0 {
			return []int64{r.Revision}
		}
	case *pb.TxnRequest:
		for _, op := range r.Success {
			if q := op.GetRequestRange(); q != nil {
				all = append(all, revisions(q)...)
			}
		}
	}
	return all
}

func maxOf(xs []int64) int64 {
	m := xs[0]
	for _, x := range xs {
		m = max(m, x)
	}
	return m
}

// compactions checks that nothing is read below a compaction that was acknowledged
// before, or that there was before the order.
func (c *check) compactions() error {
	for _, b := range c.w.history.all {
		asked := revisions(b.req)
		if b.err != nil || len(asked) == 0 {
			continue
		}
		if t, ok := b.resp.(*pb.TxnResponse); ok && !t.Succeeded {
			continue // those revisions are in the other branch
		}
		if asked[0] < c.gone {
			return fmt.Errorf("compacted from the beginning, but answered: %v", b)
		}
		for _, a := range c.w.history.all {
			q, ok := a.req.(*pb.CompactionRequest)
			if ok && a.err == nil && a.end < b.start && !serializable(b.req) && asked[0] < q.Revision {
				return fmt.Errorf("compacted, but answered:\n%v\n%v", a, b)
			}
		}
	}
	return nil
}

// endings checks that nobody hung, and that nothing is left of the requests.
func (c *check) endings() error {
	for _, r := range c.w.history.all {
		if r.overdue > time.Millisecond {
			return fmt.Errorf("it hung for %v beyond its deadline: %v", r.overdue, r)
		}
	}
	for _, s := range c.sharders {
		if err := s.idle(); err != nil {
			return err
		}
	}
	return nil
}
