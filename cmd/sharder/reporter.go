package main

import (
	"bytes"
	"context"
	"fmt"
	"strconv"
	"strings"
	"time"

	"github.com/sourcegraph/conc"
	"google.golang.org/grpc"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"

	"github.com/sharder/sharder/stages"
	"github.com/sharder/sharder/stages/backend"
	"github.com/sharder/sharder/stages/order"
	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"
	"go.etcd.io/etcd/api/v3/version"
)

const (
	// statusAge is how old a report may be. Each costs a call to every cluster.
	statusAge = time.Second
	// statusTimeout bounds the questions to one cluster.
	statusTimeout = 2 * time.Second
)

// reporter makes reports for a running sharder. However many ask, the clusters are asked
// once in a statusAge. Its methods may be called from any goroutine.
type reporter struct {
	fleet    *fleet
	reports  fresh[*report]
	versions fresh[version.Versions]
}

func newReporter(f *fleet) reporter {
	return reporter{fleet: f, reports: newFresh[*report](), versions: newFresh[version.Versions]()}
}

// get gives a report that is not older than a moment.
func (r *reporter) get(ctx context.Context) *report {
	last, err := r.reports.get(ctx, func(ctx context.Context) (*report, error) {
		made := r.fleet.report(ctx, r.fleet.readLog(ctx))
		made.From = "a running sharder"
		return made, nil
	})
	if err != nil {
		last = &report{Time: time.Now(), Problems: []string{}}
		last.problem("%v", err)
	}
	return last
}

// fresh is a value that is made anew when somebody wants one and the last is older than a
// statusAge; however many want it, it is made once.
type fresh[T any] struct {
	turn  chan struct{} // holds a token while nobody makes one
	value T             // guarded by the token, as all below
	err   error
	made  time.Time
}

func newFresh[T any]() fresh[T] {
	f := fresh[T]{turn: make(chan struct{}, 1)}
	f.turn <- struct{}{}
	return f
}

// get gives the value, or the error that there is instead of one; a context that ends is one.
func (f *fresh[T]) get(ctx context.Context, make func(context.Context) (T, error)) (T, error) {
	select {
	case <-f.turn:
		defer func() { f.turn <- struct{}{} }()
	case <-ctx.Done():
		var none T
		return none, context.Cause(ctx)
	}
	if time.Since(f.made) > statusAge {
		// Not for this asker alone: one that goes away must not spoil it for the others.
		bound, cancel := context.WithTimeout(context.WithoutCancel(ctx), statusTimeout)
		defer cancel()
		f.value, f.err = make(bound)
		f.made = time.Now()
	}
	return f.value, f.err
}

// readLog brings what is known of the order log up to date in a running sharder. The
// error says why it may be older than now.
func (f *fleet) readLog(ctx context.Context) error {
	switch c := f.central; {
	case c == nil:
		return nil
	case !c.loaded.Load():
		return fmt.Errorf("the order log has not been read yet")
	default:
		_, err := c.order.Now(ctx)
		return err
	}
}

// report asks all clusters how they are. logError says why what is known of the order
// log may be old. The log was read first: so a shard that stands before what the log
// says of it went back in time.
func (f *fleet) report(ctx context.Context, logError error) *report {
	r := &report{Time: time.Now(), Shards: make([]shardReport, len(f.shards)), Transactions: []batchReport{}, Problems: []string{}}
	var known order.Status
	if f.central != nil {
		known = f.reportOrder(r)
	}
	var wg conc.WaitGroup
	if f.central != nil {
		wg.Go(func() { r.Order.ask(ctx, f.central.cluster) })
	}
	stamps := make([]backend.Stamp, len(f.shards))
	for i := range f.shards {
		wg.Go(func() { r.Shards[i], stamps[i] = f.reportShard(ctx, i) })
	}
	wg.Wait()
	r.judge(stamps, known, logError)
	r.addTransactions(f.names(), known.Open)
	return r
}

// reportOrder puts in what is known of the order log.
func (f *fleet) reportOrder(r *report) order.Status {
	known, loaded := f.central.order.Status()
	r.Order = &orderReport{
		Known: loaded, Revision: known.Revision, Compacted: known.Compacted,
		Position: known.Position, Entries: known.Entries, Runs: known.Runs,
	}
	if loaded {
		r.Deployment = known.Genesis.Deployment
	}
	return known
}

// reportShard asks one shard. A single shard without order has no keys of sharder's, and
// may have users of its own: it is asked only what anybody may ask.
func (f *fleet) reportShard(ctx context.Context, i int) (s shardReport, stamp backend.Stamp) {
	s.Name = f.shards[i].Name
	rev := s.ask(ctx, f.clusters[i])
	if s.Revision = rev; s.unsure() || f.central == nil && len(f.shards) == 1 {
		return s, stamp
	}
	stamp, _, err := backend.LookupStamp(ctx, f.clusters[i], f.stampOf(s.Name))
	if err == nil {
		err = s.readOwn(ctx, f.clusters[i])
	}
	if err != nil {
		s.Error = message(err)
	}
	return s, stamp
}

// unsure tells that what is known of the cluster may be old, or nothing.
func (c *clusterReport) unsure() bool { return c.Error != "" || c.ReadError != "" }

// ask asks a member of the cluster for its status, and gives its revision.
func (c *clusterReport) ask(ctx context.Context, conn grpc.ClientConnInterface) (revision int64) {
	st, err := pb.NewMaintenanceClient(conn).Status(stages.Own(ctx), &pb.StatusRequest{})
	if isStranger(err) {
		// Before etcd looks at who asks, it looks for its leader if it has to.
		_, err = pb.NewMaintenanceClient(conn).Status(requireLeader(stages.Own(ctx)), &pb.StatusRequest{})
		switch {
		case isStranger(err):
			c.Anonymous = true
			c.read(ctx, conn)
			return 0
		case err != nil && message(err) == noLeader:
			c.Anonymous, c.ReadError = true, noLeader
			return 0
		}
	}
	if err != nil {
		c.Error = message(err)
		return 0
	}
	c.ClusterID = strconv.FormatUint(st.Header.GetClusterId(), 16)
	c.Version, c.DBSize, c.DBSizeInUse, c.DBSizeQuota, c.Alarms = st.Version, st.DbSize, st.DbSizeInUse, st.DbSizeQuota, st.Errors
	if st.Leader != 0 {
		c.Leader = strconv.FormatUint(st.Leader, 16)
		c.read(ctx, conn)
	}
	return st.Header.GetRevision()
}

// read asks for a key, as etcd's /health does. etcd waits for its quorum before it looks at who
// asks: a stranger learns that it is there.
func (c *clusterReport) read(ctx context.Context, conn grpc.ClientConnInterface) {
	_, err := pb.NewKVClient(conn).Range(stages.Own(ctx), &pb.RangeRequest{Key: []byte("health"), KeysOnly: true, Limit: 1})
	if err != nil && !isStranger(err) {
		c.ReadError = message(err)
	}
}

// noLeader is what a member says that has none.
var noLeader = rpctypes.ErrorDesc(rpctypes.ErrGRPCNoLeader)

// isStranger tells whether etcd answers, and has nothing to say to who has no user there.
func isStranger(err error) bool {
	text := status.Convert(err).Message()
	return text == rpctypes.ErrorDesc(rpctypes.ErrGRPCUserEmpty) || text == rpctypes.ErrorDesc(rpctypes.ErrGRPCPermissionDenied)
}

// requireLeader has a member that knows no leader refuse the call for that reason.
func requireLeader(ctx context.Context) context.Context {
	return metadata.AppendToOutgoingContext(ctx, rpctypes.MetadataRequireLeaderKey, rpctypes.MetadataHasLeader)
}

// readOwn reads the keys that are sharder's own on the shard, at its newest revision.
func (s *shardReport) readOwn(ctx context.Context, conn grpc.ClientConnInterface) error {
	r, err := pb.NewKVClient(conn).Txn(ctx, &pb.TxnRequest{Success: []*pb.RequestOp{
		{Request: &pb.RequestOp_RequestRange{RequestRange: &pb.RangeRequest{Key: []byte(stages.FenceKey)}}},
		{Request: &pb.RequestOp_RequestRange{RequestRange: &pb.RangeRequest{Key: []byte(stages.ClosedKey)}}},
	}})
	if err != nil {
		return err
	}
	s.Revision = r.Header.GetRevision()
	for i, to := range []*int64{&s.Fence, &s.Closed} {
		if kvs := r.Responses[i].GetResponseRange().GetKvs(); len(kvs) > 0 {
			*to = batchID(kvs[0].Value)
		}
	}
	return nil
}

// batchID is the number that a value begins with.
func batchID(value []byte) int64 {
	if end := bytes.IndexFunc(value, func(r rune) bool { return r < '0' || r > '9' }); end >= 0 {
		value = value[:end]
	}
	id, _ := strconv.ParseInt(string(value), 10, 64)
	return id
}

// message is an error for people, without gRPC's way to print it.
func message(err error) string {
	text := err.Error()
	if st, ok := status.FromError(err); ok {
		text = st.Message()
	}
	return strings.TrimPrefix(text, "sharder: ")
}
