package sim

import (
	"cmp"
	"fmt"
	"path/filepath"
	"slices"
	"strings"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	"go.etcd.io/etcd/api/v3/mvccpb"
	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"
)

// check judges a run that has ended.
type check struct {
	w        *world
	sharders []*sharder
	*truth
	owner map[int64]*record // who wrote a revision, as far as that is known
	one   *store            // the one etcd that all sharders together have to be like
}

func newCheck(w *world, sharders []*sharder) *check {
	return &check{w: w, sharders: sharders, owner: map[int64]*record{}}
}

// all checks everything, and gives the first violation.
func (c *check) all() (err error) {
	if c.truth, err = readTruth(c.w.genesis, c.w.log.entries, c.w.log.positions, c.w.shards); err != nil {
		return err
	}
	c.resolve()
	for _, step := range []func() error{c.maps, c.owners, c.replies, c.leases, c.time, c.errors, c.compactions, c.endings} {
		if err := step(); err != nil {
			return err
		}
	}
	return nil
}

// resolve finds the revisions of writes that were acknowledged before they had one.
func (c *check) resolve() {
	for _, r := range c.w.history.all {
		if r.written > 0 && r.err == nil {
			headerOf(r.resp).Revision = c.global[r.shard][r.written]
		}
	}
}

// maps compares what the sharders know with the log: each has the same moment, and the
// same numbers for every revision that can still be asked for.
func (c *check) maps() error {
	for _, s := range c.sharders {
		cut := s.Replayed()
		if cut.Revision != c.top {
			return fmt.Errorf("%s stands at revision %d, and the log at %d", s.name, cut.Revision, c.top)
		}
		for i := range c.global {
			if err := c.numbers(s, i, cut.Compacted); err != nil {
				return err
			}
		}
	}
	return nil
}

// numbers compares what a sharder knows of one shard.
func (c *check) numbers(s *sharder, shard int, compacted int64) error {
	named, next := c.global[shard], c.top+1 // the number of the next revision, going down
	for rev := c.covered[shard]; rev > 0; rev-- {
		complete := s.Complete(shard, rev)
		exact := next > compacted && (rev == c.covered[shard] || named[rev+1] == next) // sharder's own may lie between
		if complete >= next || complete != next-1 && exact {
			return fmt.Errorf("%s takes shard %d at %d to be complete up to %d, and it is up to %d", s.name, shard, rev, complete, next-1)
		}
		g := named[rev]
		if g == 0 {
			continue // sharder's own
		}
		next = g
		if have := s.Revision(shard, rev); have != g && g >= compacted {
			return fmt.Errorf("%s takes revision %d of shard %d for %d, and it is %d", s.name, rev, shard, have, g)
		}
		// What lies between may be sharder's own.
		if first := s.First(shard, g); g > compacted && (first > rev || named[first] > 0 && first < rev) {
			return fmt.Errorf("%s takes %d for the first revision of shard %d from %d on, and it is %d", s.name, first, shard, g, rev)
		}
	}
	return nil
}

// owners finds out who wrote each revision: those who were told so, and those whose value
// is found there although they were never told.
func (c *check) owners() error {
	for _, r := range c.w.history.all {
		if r.err != nil || !wrote(r.resp) {
			continue
		}
		g := headerOf(r.resp).Revision
		if c.owner[g] != nil {
			return fmt.Errorf("revision %d was acknowledged twice:\n%v\n%v", g, c.owner[g], r)
		}
		c.owner[g] = r
	}
	values := map[string]*record{}
	for _, r := range c.w.history.all {
		if putsValue(r.req, r.value()) {
			values[r.value()] = r
		}
	}
	return c.ownersByValue(values)
}

func (c *check) ownersByValue(values map[string]*record) error {
	now, first := map[string]string{}, map[string]int64{}
	for g := c.base + 1; g <= c.top; g++ {
		for _, kv := range c.events[g] {
			key, value := string(kv.Key), string(kv.Value)
			before := now[key]
			now[key] = value
			r := values[value]
			if r == nil || first[value] == g || before == value && first[value] > 0 {
				continue // an event without a value of its own, or one that only touched the key
			}
			switch {
			case first[value] > 0:
				return fmt.Errorf("one request wrote at revisions %d and %d: %v", first[value], g, r)
			case c.owner[g] != nil && c.owner[g] != r:
				return fmt.Errorf("revision %d was acknowledged to another than its writer:\n%v\n%v", g, c.owner[g], r)
			case r.client == strange && !c.batches.revisions[g] || r.err != nil && !ambiguous(r.err):
				return fmt.Errorf("a request that was refused wrote at revision %d: %v", g, r)
			}
			first[value], c.owner[g] = g, r
		}
	}
	return nil
}

// replies does everything once more on one etcd, in the order of the revisions: what was
// answered has to be what that etcd answers, and what changed has to be what changes there.
func (c *check) replies() error {
	c.one = newStore(filepath.Join(filepath.Dir(c.w.shards[0].store.path), fmt.Sprintf("%d-one", c.w.seed)))
	defer c.one.close()
	reads := map[int64][]*record{}
	for _, r := range c.w.history.all {
		if r.err == nil && !wrote(r.resp) && answersFromStore(r.req) {
			g := headerOf(r.resp).Revision
			reads[g] = append(reads[g], r)
		}
	}
	for c.one.head() < c.base {
		if _, err := c.one.apply(&pb.PutRequest{Key: []byte("\x00before")}, 0); err != nil {
			return err
		}
	}
	for g := c.base; g <= c.top; g++ {
		if g > c.base {
			if err := c.write(g); err != nil {
				return err
			}
		}
		for _, r := range reads[g] {
			if err := c.reply(r); err != nil {
				return err
			}
		}
		delete(reads, g)
	}
	for g, rs := range reads {
		return fmt.Errorf("there never was a revision %d: %v", g, rs[0])
	}
	return nil
}

// write makes revision g on the one etcd.
func (c *check) write(g int64) error {
	if r := c.owner[g]; r == nil {
		if _, err := c.one.apply(asRequest(c.events[g]), 0); err != nil {
			return err
		}
	} else if err := c.reply(r); err != nil {
		return err
	}
	if head := c.one.head(); head != g {
		return fmt.Errorf("revision %d: one etcd is at %d then: %v", g, head, c.owner[g])
	}
	want, have := sorted(c.one.events[g]), sorted(c.events[g])
	if !slices.EqualFunc(want, have, func(a, b *mvccpb.KeyValue) bool { return proto.Equal(a, b) }) {
		return fmt.Errorf("revision %d has %v; on one etcd it has %v: %v", g, have, want, c.owner[g])
	}
	return nil
}

// reply has the one etcd answer a request, and compares.
func (c *check) reply(r *record) error {
	want, err := c.one.apply(proto.Clone(r.req), c.one.head())
	if r.err != nil {
		return nil // nobody heard an answer; its effect is compared
	}
	if err != nil {
		return fmt.Errorf("one etcd says %w at revision %d to %v", err, c.one.head(), r)
	}
	have := proto.Clone(r.resp)
	h := headerOf(have)
	h.ClusterId, h.MemberId, h.RaftTerm = 0, 0, 0
	if !proto.Equal(want, have) {
		return fmt.Errorf("one etcd says %v at revision %d to %v", want, c.one.head(), r)
	}
	return nil
}

// asRequest makes a Txn of events.
func asRequest(events []*mvccpb.KeyValue) *pb.TxnRequest {
	t := &pb.TxnRequest{}
	for _, kv := range events {
		if kv.CreateRevision > 0 {
			t.Success = append(t.Success, put(&pb.PutRequest{Key: kv.Key, Value: kv.Value, Lease: kv.Lease}))
		} else {
			t.Success = append(t.Success, del(&pb.DeleteRangeRequest{Key: kv.Key}))
		}
	}
	return t
}

// answersFromStore tells whether the answer to a request is what a store holds.
func answersFromStore(req proto.Message) bool {
	switch req.(type) {
	case *pb.CompactionRequest, *pb.LeaseRevokeRequest:
		return false
	}
	return true
}

func sorted(events []*mvccpb.KeyValue) []*mvccpb.KeyValue {
	return slices.SortedFunc(slices.Values(events), func(a, b *mvccpb.KeyValue) int {
		return cmp.Or(strings.Compare(string(a.Key), string(b.Key)), cmp.Compare(a.Version, b.Version))
	})
}

func headerOf(resp proto.Message) *pb.ResponseHeader {
	return resp.(interface{ GetHeader() *pb.ResponseHeader }).GetHeader()
}

// wrote tells from an answer whether anything was changed.
func wrote(resp proto.Message) bool {
	switch r := resp.(type) {
	case *pb.PutResponse:
		return true
	case *pb.DeleteRangeResponse:
		return r.Deleted > 0
	case *pb.TxnResponse:
		return slices.ContainsFunc(r.Responses, func(op *pb.ResponseOp) bool {
			return op.GetResponsePut() != nil || op.GetResponseDeleteRange().GetDeleted() > 0 ||
				op.GetResponseTxn() != nil && wrote(op.GetResponseTxn())
		})
	}
	return false
}

// ambiguous tells that an error leaves open whether the request was done.
func ambiguous(err error) bool {
	switch status.Code(err) {
	case codes.Unavailable, codes.DeadlineExceeded, codes.Canceled:
		return true
	}
	return false
}

func isError(err, want error) bool {
	return err != nil && status.Code(err) == status.Code(want) && status.Convert(err).Message() == status.Convert(want).Message()
}

var (
	errCompacted = rpctypes.ErrGRPCCompacted
	errFuture    = rpctypes.ErrGRPCFutureRev
	errNotFound  = rpctypes.ErrGRPCKeyNotFound
	errNoLease   = rpctypes.ErrGRPCLeaseNotFound
)
