package integration

import (
	"fmt"
	"slices"
	"strconv"
	"strings"
	"testing"

	"google.golang.org/protobuf/proto"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	"go.etcd.io/etcd/server/v3/embed"

	"github.com/sharder/sharder/integration/etcdtest"
	"github.com/sharder/sharder/integration/harness"
	"github.com/sharder/sharder/integration/history"
	"github.com/sharder/sharder/integration/script"
)

// orderedSteps is how many random requests are made for each seed under one order.
var orderedSteps = harness.Often(800)

// startOrdered runs three shards and an order cluster, and so many sharders in front.
func startOrdered(t *testing.T, sharders int) (endpoints []string, shards []*etcdtest.Etcd) {
	t.Helper()
	c, shards := orderedConf(t)
	for range sharders {
		endpoints = append(endpoints, harness.Start(t, c).Endpoint)
	}
	return endpoints, shards
}

// orderedConf runs three shards and an order cluster, and gives the configuration of those
// in front.
func orderedConf(t *testing.T) (c harness.Conf, shards []*etcdtest.Etcd) {
	t.Helper()
	room := func(c *embed.Config) { c.MaxTxnOps, c.MaxRequestBytes = 256, 2<<20 }
	for range 3 {
		shards = append(shards, etcdtest.Start(t, room))
	}
	c = harness.Three([]string{shards[0].Endpoint}, []string{shards[1].Endpoint}, []string{shards[2].Endpoint}).
		Ordered(etcdtest.Start(t, room).Endpoint)
	return c, shards
}

// TestRandomRequestsAreAnsweredAsByOneEtcdUnderOneOrder makes the same random requests to
// an etcd and, now through one and now through the other of two sharders, to three shards
// under one order. Every reply is the same, revisions included, and so is what watches
// see.
func TestRandomRequestsAreAnsweredAsByOneEtcdUnderOneOrder(t *testing.T) {
	t.Parallel()
	for _, n := range seeds(t, 3) {
		t.Run(fmt.Sprint("seed ", n), func(t *testing.T) {
			endpoints, _ := startOrdered(t, 2)
			newDuel(t, newPair(t, n, script.Ordered, endpoints...)).fight(n)
		})
	}
}

// Two etcds are alike: what the test above does is what etcd itself passes.
func TestRandomRequestsAreAnsweredAlikeByTwoEtcds(t *testing.T) {
	t.Parallel()
	for _, n := range seeds(t, 2) {
		other := etcdtest.Start(t).Endpoint
		newDuel(t, newPair(t, n, script.Ordered, other, other)).fight(n)
	}
}

// fight makes all steps.
func (d *duel) fight(seed uint64) {
	d.t.Helper()
	for i := 0; i < orderedSteps && !d.t.Failed(); i++ {
		d.step(i)
	}
	if !d.t.Failed() {
		d.end()
	}
	if d.t.Failed() {
		d.t.Logf("SHARDER_SEED=%d repeats this run; watches:\n%s", seed, strings.Join(d.watches.story, "\n"))
	}
}

// duel is a pair whose revisions are the same.
type duel struct {
	*pair
	gen     *revGenerator
	watches *watchPair
}

func newDuel(t *testing.T, p *pair) *duel {
	g := &revGenerator{generator: p.gen, head: 1, own: map[string][2]int64{}}
	return &duel{pair: p, gen: g, watches: newWatchPair(t, p.etcd, p.sharder, g)}
}

// step does one thing to both.
func (d *duel) step(i int) {
	d.t.Helper()
	name := "step " + strconv.Itoa(i)
	switch n := d.gen.rand.IntN(100); {
	case n < 4:
		d.leaseRequest(name)
	case n < 6:
		if d.watches.caughtUp(name) {
			d.compact(name)
			d.watches.tell("%s: compacted %d", name, d.gen.compacted)
		}
	case n < 14:
		d.watches.create(name)
	case n < 17:
		d.watches.cancel(name)
	case n < 20:
		d.watches.askProgress()
	case n < 25:
		d.stream(name)
	default:
		req := d.gen.next()
		d.refresh(req)
		d.gen.learn(req, d.same(name, req))
	}
}

// refresh lets every sharder hear of the last write before a request that may be answered
// from what it knows: else it may answer as a lagging member of an etcd.
func (d *duel) refresh(req proto.Message) {
	d.t.Helper()
	if !serializable(req) {
		return
	}
	for _, conn := range d.sharder {
		if _, err := pb.NewKVClient(conn).Range(bounded(d.t), &pb.RangeRequest{Key: []byte("a"), CountOnly: true}); err != nil {
			d.t.Fatal(err)
		}
	}
}

// serializable tells whether there is a serializable range in a request.
func serializable(req proto.Message) bool {
	switch r := req.(type) {
	case *pb.RangeRequest:
		return r.GetSerializable()
	case *pb.TxnRequest:
		for _, op := range slices.Concat(r.GetSuccess(), r.GetFailure()) {
			if serializable(op.GetRequestRange()) || serializable(op.GetRequestTxn()) {
				return true
			}
		}
	}
	return false
}

// end compares everything once more, and what all watches saw.
func (d *duel) end() {
	d.t.Helper()
	all := &pb.RangeRequest{Key: []byte{0}, RangeEnd: []byte{0}}
	for range d.sharder {
		d.same("the end", all)
	}
	d.watches.settle("the end")
	d.watches.compare()
}

// compact asks both for a compaction, possible or not.
func (d *duel) compact(name string) {
	d.t.Helper()
	req := &pb.CompactionRequest{Revision: d.gen.compacted + d.gen.rand.Int64N(d.gen.head-d.gen.compacted+1)/2, Physical: d.gen.chance(2)}
	if d.gen.chance(3) {
		req.Revision = d.gen.revision()
	}
	if req.Revision == 0 {
		req.Revision = -1 // 0 can be compacted once, of all revisions there never were
	}
	if d.same(name, req) != nil {
		d.gen.compacted = max(d.gen.compacted, req.Revision)
	}
}

// stream reads a range as a stream from both. Where the pages end is the server's
// business: they are compared merged.
func (d *duel) stream(name string) {
	d.t.Helper()
	req := d.gen.read()
	if req.SortOrder == pb.RangeRequest_NONE {
		// etcd sorts each of its pages then, and goes on behind the last key of a page.
		req.SortTarget = pb.RangeRequest_KEY
	}
	d.refresh(req)
	var replies [2]proto.Message
	var errs [2]error
	for i, conn := range d.conns() {
		replies[i], errs[i] = history.Stream(bounded(d.t), pb.NewKVClient(conn), req)
	}
	if !d.sameError(name, short(req), errs) || errs[0] != nil {
		return
	}
	if a, b := d.normal(replies[0]), d.normal(replies[1]); !proto.Equal(a, b) {
		d.t.Errorf("%s: stream of %s\netcd: %s\nsharder: %s", name, short(req), short(a), short(b))
	}
}
