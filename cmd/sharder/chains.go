package main

import (
	"context"
	"log/slog"

	"google.golang.org/grpc"
	"google.golang.org/grpc/metadata"

	"github.com/sharder/sharder/conf"
	"github.com/sharder/sharder/pipeline"
	"github.com/sharder/sharder/stages"
	"github.com/sharder/sharder/stages/lease"
	"github.com/sharder/sharder/stages/order"
	"github.com/sharder/sharder/stages/watch"
	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	"go.etcd.io/etcd/api/v3/mvccpb"
)

// This file is the picture of the whole: every RPC's chain, top to bottom. A request
// goes through
//
//	door ═► decode ─► pin ─► route ─► scatter ═► call (per shard) ═► gather ─► encode
//
// where ═► is a bounded link and ─► a plain call on the request's own goroutine. The
// door bounds the requests inside the process, a shard's lane the calls in flight to
// that shard. Streams are pipelines of their own: RangeStream, Watch, LeaseKeepAlive.
//
// There are three shapes of the same chains. A, one shard: a transparent proxy; the
// shard sees the client's identity and answers for itself. B, several shards: keys that
// begin with a NUL byte are sharder's own, leases have a home, and what can't be right
// without one order over all shards is refused. C, shards and an order cluster: the
// chains of B with the stages of package order added; pin chooses the moment at which all
// shards are read, the call of a shard translates revisions and has writes ordered, and
// what writes on several shards goes a way of its own, in batches.
// Nothing below this file asks which shape it is in.

// chains are the ways of all RPCs.
type chains struct {
	rng         pipeline.Stage[*pb.RangeRequest, *pb.RangeResponse]
	put         pipeline.Stage[*pb.PutRequest, *pb.PutResponse]
	deleteRange pipeline.Stage[*pb.DeleteRangeRequest, *pb.DeleteRangeResponse]
	txn         pipeline.Stage[*pb.TxnRequest, *pb.TxnResponse]
	compact     pipeline.Stage[*pb.CompactionRequest, *pb.CompactionResponse]
	rangeStream func(*pb.RangeRequest, pb.KV_RangeStreamServer) error

	leaseGrant      pipeline.Stage[*pb.LeaseGrantRequest, *pb.LeaseGrantResponse]
	leaseRevoke     pipeline.Stage[*pb.LeaseRevokeRequest, *pb.LeaseRevokeResponse]
	leaseTimeToLive pipeline.Stage[*pb.LeaseTimeToLiveRequest, *pb.LeaseTimeToLiveResponse]
	leaseLeases     pipeline.Stage[*pb.LeaseLeasesRequest, *pb.LeaseLeasesResponse]

	door   *pipeline.Link // of all unary requests above
	watch  *watch.Server
	leases lease.Service
	others grpc.StreamHandler // services that are not in this file
	relay  *stages.Relay      // serves them in shape A, nil otherwise

	recipes *recipes // serves Lock and Election in shape C, nil otherwise
}

// newChains writes the chains out for the shape that the configuration has.
func newChains(cfg *conf.Config, table *stages.Table, one *ordered, log *slog.Logger) *chains {
	c := &chains{}
	shards := table.Shards()
	alone := one == nil && len(shards) == 1
	decode := stages.Decoder{Reserve: !alone}
	c.leases = newLeases(cfg, shards, one, log)
	c.watch = newWatch(cfg, table, decode, c.leases, one, log)
	switch {
	case one != nil:
		c.shapeC(cfg, table, decode, one.order)
	case alone:
		c.shapeA(cfg, table, decode)
	default:
		c.shapeB(cfg, table, decode)
	}
	return c
}

// ordered is what shape C has and the others don't: the order, and the cluster that holds
// its log and the leases, as a shard that has no keys of clients.
type ordered struct {
	order *order.Order
	home  *stages.Shard
}

// shapeA: one call to one shard, which sees the client and answers for itself. What comes
// back tells the watches how far the shard has come.
func (c *chains) shapeA(cfg *conf.Config, table *stages.Table, decode stages.Decoder) {
	shard := table.Shards()[0]
	call := pipeline.Wrap(stages.CallShard, stages.Lane, c.watch.Observe, stages.ForwardIdentity)
	door := c.kv(cfg, table, decode, joints{read: call, write: call, deletes: stages.ScatterDelete(call)})
	c.compact = pipeline.Queue(door, compactOne(shard, c.watch))
	c.rangeStream = stages.RangeStream(table, stages.StreamOptions{
		Decoder: decode, Call: call, PageBytes: int(cfg.Limits.StreamPage), Context: stages.ForwardMetadata,
	})
	c.relay = stages.NewRelay(shard)
	c.others = c.relay.Handle
}

// shapeB: the lease a Put names is made known to its shard first; then the shard's lane.
func (c *chains) shapeB(cfg *conf.Config, table *stages.Table, decode stages.Decoder) {
	call := pipeline.Wrap(stages.CallShard, c.leases.Attach(), stages.Lane, c.watch.Observe)
	c.kv(cfg, table, decode, joints{read: call, write: call, deletes: stages.ScatterDelete(call)})
	c.compact = stages.RefuseCompact
	c.rangeStream = stages.RangeStream(table, stages.StreamOptions{
		Decoder: decode, Call: call, PageBytes: int(cfg.Limits.StreamPage),
		Translate: func(ctx context.Context, _ *stages.Shard, kvs []*mvccpb.KeyValue) ([]*mvccpb.KeyValue, error) {
			return c.leases.TranslateKV(ctx, kvs)
		},
	})
	c.others = stages.RefuseOthers
}

// shapeC: a Range is pinned to one moment, and each shard is read at that moment. A write
// is done on its shard, which checks the guard, and is answered when it has its place in
// the order. What may write on several shards is done in a batch of such transactions.
func (c *chains) shapeC(cfg *conf.Config, table *stages.Table, decode stages.Decoder, one *order.Order) {
	decode.MaxTxnOps, decode.MaxRequestBytes = order.MaxTxnOps, int(cfg.MaxRequestBytes)
	read := pipeline.Wrap(stages.CallShard, one.At, c.leases.Attach(), stages.Lane, c.watch.Observe)
	write := pipeline.Wrap(stages.CallShard, one.Commit, c.leases.Attach(), stages.Lane, c.watch.Observe, one.Guard)
	one.Execute(table, read, c.leases.(*lease.Manager)) // which newLeases made, for this shape
	door := c.kv(cfg, table, decode, joints{
		read: read, write: write, deletes: pipeline.Scatter(write),
		pin:     []pipeline.Middleware[*stages.Op, *stages.Reply]{one.Pin},
		several: []pipeline.Middleware[*stages.Op, *stages.Reply]{one.Transact},
	})
	c.compact = pipeline.Queue(door, one.Compact)
	c.rangeStream = stages.RangeStream(table, stages.StreamOptions{
		Decoder: decode, Call: read, PageBytes: int(cfg.Limits.StreamPage), Pin: one.PinStream,
		Translate: func(ctx context.Context, s *stages.Shard, kvs []*mvccpb.KeyValue) ([]*mvccpb.KeyValue, error) {
			if err := one.Translate(s, kvs); err != nil {
				return nil, err
			}
			return c.leases.TranslateKV(ctx, kvs)
		},
	})
	c.others = newStatusTeller(table.Shards(), one).handle
	c.recipes = newRecipes(c)
}

// joints are the places at which the shapes differ: the call of a shard for what reads
// and for what may write, how deletes go to several shards, and what is put around
// everything from route to gather.
type joints struct {
	read, write  pipeline.Stage[stages.Call, stages.Reply]
	deletes      pipeline.Stage[[]stages.Call, []stages.Reply]
	pin, several []pipeline.Middleware[*stages.Op, *stages.Reply]
}

// kv writes the unary chains out that all shapes have, and gives their door.
func (c *chains) kv(cfg *conf.Config, table *stages.Table, decode stages.Decoder, j joints) *pipeline.Link {
	route := stages.RouteOp(table)
	door := pipeline.NewLink(cfg.Limits.Requests, cfg.Limits.RequestsWaiting)
	c.door = door
	c.rng = pipeline.Queue(door, pipeline.Chain3(
		decode.Range,
		pipeline.Wrap(
			pipeline.Wrap(pipeline.Chain3(route, pipeline.Scatter(j.read), stages.MergeRange), stages.RetryWhole),
			j.pin...,
		),
		stages.EncodeRange,
	))
	c.put = pipeline.Queue(door, pipeline.Chain5(
		decode.Put,
		route,
		pipeline.Scatter(j.write),
		stages.Gather,
		stages.EncodePut,
	))
	c.deleteRange = pipeline.Queue(door, pipeline.Chain3(
		decode.DeleteRange,
		pipeline.Wrap(pipeline.Chain3(route, j.deletes, stages.MergeDelete), j.several...),
		stages.EncodeDeleteRange,
	))
	c.txn = pipeline.Queue(door, pipeline.Chain3(
		decode.Txn,
		pipeline.Wrap(pipeline.Chain3(route, pipeline.Scatter(j.write), stages.Gather), j.several...),
		stages.EncodeTxn,
	))
	c.leaseGrant = pipeline.Queue(door, c.leases.Grant)
	c.leaseRevoke = pipeline.Queue(door, c.leases.Revoke)
	c.leaseTimeToLive = pipeline.Queue(door, c.leases.TimeToLive)
	c.leaseLeases = pipeline.Queue(door, c.leases.Leases)
	return door
}

// newLeases gives one shard's leases as they are, or several shards' leases a home: the
// order cluster in shape C, the first shard in B.
func newLeases(cfg *conf.Config, shards []*stages.Shard, one *ordered, log *slog.Logger) lease.Service {
	o := lease.Options{
		Home: shards[0], Shards: shards,
		KeepAliveStreams: cfg.Lease.KeepAliveStreams, Logger: log,
	}
	switch {
	case one != nil:
		o.Home = one.home
		o.Deleted, o.End, o.Header = one.order.CoverOn, one.order.EndLease, one.order.HeaderNow
	case len(shards) == 1:
		return lease.NewRelay(o)
	}
	return lease.New(o)
}

// newWatch makes the watches of one shard its own, with its clients' identity, or those of
// several shards; in shape C they are in the one order.
func newWatch(cfg *conf.Config, table *stages.Table, decode stages.Decoder, leases lease.Service, one *ordered, log *slog.Logger) *watch.Server {
	o := watch.Options{
		Table: table, Decoder: decode,
		Queue: cfg.Watch.Queue, QueueBytes: int64(cfg.Watch.QueueBytes), HistoryBytes: int64(cfg.Watch.HistoryBytes),
		CatchUps: cfg.Watch.CatchUps, ProgressInterval: cfg.Watch.ProgressInterval,
		FragmentBytes: int64(cfg.MaxRequestBytes) + requestOverhead,
		Logger:        log,
	}
	switch {
	case one != nil:
		o.Translate, o.Order = leases.TranslateEvents, one.order
	case len(table.Shards()) == 1:
		o.Identity = identity
	default:
		o.Translate = leases.TranslateEvents
	}
	return watch.New(o)
}

// identity is what tells a shard who the client is. etcd knows two names for it.
func identity(ctx context.Context) metadata.MD {
	in, _ := metadata.FromIncomingContext(ctx)
	out := metadata.MD{}
	for _, name := range []string{"token", "authorization"} {
		if v := in.Get(name); len(v) > 0 {
			out[name] = v
		}
	}
	return out
}

// compactOne passes a compaction on, and tells the watches of it.
func compactOne(shard *stages.Shard, w *watch.Server) pipeline.Stage[*pb.CompactionRequest, *pb.CompactionResponse] {
	kv := pb.NewKVClient(shard.Conn)
	return func(ctx context.Context, r *pb.CompactionRequest) (*pb.CompactionResponse, error) {
		resp, err := kv.Compact(stages.ForwardMetadata(ctx), r)
		if err == nil {
			w.Compacted(shard, r.Revision)
		}
		return resp, err
	}
}
