package main

import (
	"context"
	"log/slog"

	"google.golang.org/grpc"

	"github.com/sharder/sharder/conf"
	"github.com/sharder/sharder/pipeline"
	"github.com/sharder/sharder/stages"
	"github.com/sharder/sharder/stages/cache"
	"github.com/sharder/sharder/stages/lease"
	"github.com/sharder/sharder/stages/members"
	"github.com/sharder/sharder/stages/namespace"
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
//
// In a namespace, a door of its own stands in front of all this (package namespace): what comes
// in has the prefix already, and what goes out loses it on the way. Whatever is not KV, Watch or
// Lease goes through it, too (others), and Lock and Election ask through it.

// chains are the ways of all RPCs.
type chains struct {
	rng         pipeline.Stage[*pb.RangeRequest, *pb.RangeResponse]
	put         pipeline.Stage[*pb.PutRequest, *pb.PutResponse]
	deleteRange pipeline.Stage[*pb.DeleteRangeRequest, *pb.DeleteRangeResponse]
	txn         pipeline.Stage[*pb.TxnRequest, *pb.TxnResponse]
	compact     pipeline.Stage[*pb.CompactionRequest, *pb.CompactionResponse]
	rangeStream func(*pb.RangeRequest, pb.KV_RangeStreamServer) error
	frames      *frames // of rng to txn for gRPC in shape A without a namespace, nil otherwise

	leaseGrant      pipeline.Stage[*pb.LeaseGrantRequest, *pb.LeaseGrantResponse]
	leaseRevoke     pipeline.Stage[*pb.LeaseRevokeRequest, *pb.LeaseRevokeResponse]
	leaseTimeToLive pipeline.Stage[*pb.LeaseTimeToLiveRequest, *pb.LeaseTimeToLiveResponse]
	leaseLeases     pipeline.Stage[*pb.LeaseLeasesRequest, *pb.LeaseLeasesResponse]

	memberList pipeline.Stage[*pb.MemberListRequest, *pb.MemberListResponse]
	registry   *members.Registry // of sharders; nil if they don't register

	door   *pipeline.Link // of all unary requests above
	watch  *watch.Server
	leases lease.Service
	others grpc.StreamHandler // services that have no fields here, by method
	relay  *stages.Relay      // serves those of them that nothing is known of in shape A, nil otherwise

	maintainer *members.Maintenance // addresses the members of clusters

	cache *cache.Cache // answers serializable reads in shape A, unless it is switched off; nil otherwise

	space   *namespace.Namespace // nil if clients have the whole keyspace
	edge    edge                 // where clients come in
	recipes *recipes             // serves Lock and Election; nil in shape A, where the shard does, but in a namespace
}

// newChains writes the chains out for the shape that the configuration has.
func newChains(cfg *conf.Config, table *stages.Table, one *ordered, clusters []*members.Cluster, log *slog.Logger) *chains {
	c := &chains{maintainer: members.NewMaintenance(clusters...)}
	if cfg.Namespace != nil {
		c.space = namespace.New(cfg.Namespace)
	}
	c.edge = newEdge(c, c.space)
	shards := table.Shards()
	alone := one == nil && len(shards) == 1
	decode := stages.Decoder{Reserve: !alone}
	c.leases = c.newLeases(cfg, shards, one, log)
	c.watch = newWatch(cfg, table, decode, c.leases, one, log)
	switch {
	case one != nil:
		c.shapeC(cfg, table, decode, one, log)
	case alone:
		c.shapeA(cfg, table, decode, log)
	default:
		c.shapeB(cfg, table, decode, log)
	}
	if c.space != nil {
		c.others = namespace.Others(c.others)
	}
	return c
}

// members has MemberList answered with the sharders, or by the cluster that the client names
// (in shape A by the shard, if the configuration says so).
// header gives the header of the answer; nil for the one of what was read of the registry on
// home.
func (c *chains) members(cfg *conf.Config, home *stages.Shard, header func(context.Context, *pb.MemberListRequest) (*pb.ResponseHeader, error), log *slog.Logger) grpc.StreamHandler {
	c.registry = newRegistry(cfg, c, home, c.relay != nil, log)
	list := &members.List{Self: self(cfg), Registry: c.registry, Header: header}
	c.memberList = pipeline.Queue(c.door, list.Answer)
	whole := unary(func() *pb.MemberListRequest { return &pb.MemberListRequest{} }, c.memberList)
	if cfg.Members == conf.MembersShard {
		whole = c.relay.Handle
	}
	return c.maintainer.Named(whole, c.maintainer.Unary(members.Leader))
}

// maintenance says by which member each call of the Maintenance service is served: the one
// that the client names, or else this one. Over several shards, all answers for them if the
// client names none; what is about one is refused then.
func (c *chains) maintenance(all *members.Composite) map[string]grpc.StreamHandler {
	m := c.maintainer
	status, alarm := m.Unary(members.Leader), m.Unary(members.Leader)
	if all != nil {
		status = m.Named(unary(func() *pb.StatusRequest { return &pb.StatusRequest{} }, all.Status), status)
		alarm = m.Named(unary(func() *pb.AlarmRequest { return &pb.AlarmRequest{} }, all.Alarms), alarm)
	}
	return map[string]grpc.StreamHandler{
		pb.Maintenance_Status_FullMethodName:     status,
		pb.Maintenance_Alarm_FullMethodName:      alarm,
		pb.Maintenance_Hash_FullMethodName:       m.Unary(members.Leader),
		pb.Maintenance_HashKV_FullMethodName:     m.Unary(members.Leader),
		pb.Maintenance_Downgrade_FullMethodName:  m.Unary(members.Leader),
		pb.Maintenance_MoveLeader_FullMethodName: m.Unary(members.LeaderNow),
		pb.Maintenance_Snapshot_FullMethodName:   m.Stream(members.Source),
		pb.Maintenance_Defragment_FullMethodName: m.Defragment(),
	}
}

// ordered is what shape C has and the others don't: the order, and the cluster that holds
// its log and the leases, as a shard that has no keys of clients.
type ordered struct {
	order *order.Order
	home  *stages.Shard
}

// shapeA: one call to one shard, which sees the client and answers for itself. What comes
// back tells the watches how far the shard has come, and is not decoded (frames.go) on its way
// to a client that asks by gRPC: nothing around the call may read more of an answer than its
// revision. Serializable reads may be answered by the cache, which goes around everything, door
// included; what is written passes it as well.
func (c *chains) shapeA(cfg *conf.Config, table *stages.Table, decode stages.Decoder, log *slog.Logger) {
	shard := table.Shards()[0]
	monotonic := newMonotonic(cfg, table)
	c.cache = newCache(cfg, shard, monotonic, log)
	around := []pipeline.Middleware[stages.Call, stages.Reply]{c.cache.Around, monotonic.Around, stages.Lane, c.watch.Observe, stages.ForwardIdentity}
	call := pipeline.Wrap(stages.CallShard, around...)
	door := c.kv(cfg, table, decode, joints{read: call, write: call, deletes: stages.ScatterDelete(call)})
	c.rng, c.leaseRevoke = c.cache.Range(c.rng), c.cache.Revoke(c.leaseRevoke)
	if c.space == nil {
		c.frames = newFrames(door, decode, shard, pipeline.Wrap(stages.CallFrame, around...))
		c.frames.rng = c.cache.RangeFrame(c.frames.rng)
	}
	c.compact = pipeline.Queue(door, compactOne(shard, c.watch))
	c.rangeStream = stages.RangeStream(table, stages.StreamOptions{
		Decoder: decode, Call: call, PageBytes: int(cfg.Limits.StreamPage), Context: stages.ForwardMetadata,
	})
	c.relay = stages.NewRelay(shard)
	o := others{ways: c.maintenance(nil), rest: c.cache.Relayed(c.relay.Handle)}
	o.ways[pb.Cluster_MemberList_FullMethodName] = c.members(cfg, shard, memberHeader(shard), log)
	c.others = o.handle
	if c.space != nil {
		c.recipes = newRecipes(c.edge)
		c.recipes.identity = askedAs
	}
}

// shapeB: the lease a Put names is made known to its shard first; then the shard's lane.
func (c *chains) shapeB(cfg *conf.Config, table *stages.Table, decode stages.Decoder, log *slog.Logger) {
	call := pipeline.Wrap(stages.CallShard, newMonotonic(cfg, table).Around, c.leases.Attach(), stages.Lane, c.watch.Observe)
	c.kv(cfg, table, decode, joints{read: call, write: call, deletes: stages.ScatterDelete(call)})
	c.compact = stages.RefuseCompact
	c.rangeStream = stages.RangeStream(table, stages.StreamOptions{
		Decoder: decode, Call: call, PageBytes: int(cfg.Limits.StreamPage),
		Translate: func(ctx context.Context, _ *stages.Shard, kvs []*mvccpb.KeyValue) ([]*mvccpb.KeyValue, error) {
			return c.leases.TranslateKV(ctx, kvs)
		},
	})
	o := others{ways: c.maintenance(members.NewComposite(table.Shards(), nil)), rest: refuseB}
	o.ways[pb.Cluster_MemberList_FullMethodName] = c.members(cfg, table.Shards()[0], nil, log)
	c.others = o.handle
	c.recipes = newRecipes(c.edge)
	c.recipes.where = shardsOf(table, c.space)
}

// shapeC: a Range is pinned to one moment, and each shard is read at that moment. A write
// is done on its shard, which checks the guard, and is answered when it has its place in
// the order. What may write on several shards is done in a batch of such transactions.
func (c *chains) shapeC(cfg *conf.Config, table *stages.Table, decode stages.Decoder, in *ordered, log *slog.Logger) {
	one := in.order
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
	composite := members.NewComposite(table.Shards(), func() *pb.ResponseHeader { return one.Header(one.Replayed().Revision) })
	o := others{ways: c.maintenance(composite), rest: refuseC}
	o.ways[pb.Cluster_MemberList_FullMethodName] = c.members(cfg, in.home, func(ctx context.Context, r *pb.MemberListRequest) (*pb.ResponseHeader, error) {
		return one.HeaderNow(ctx, r.Linearizable)
	}, log)
	c.others = o.handle
	c.recipes = newRecipes(c.edge)
}

// newMonotonic keeps serializable reads from going back, if the file wants it.
func newMonotonic(cfg *conf.Config, table *stages.Table) *stages.Monotonic {
	if !cfg.SerializableOrdering {
		return nil
	}
	return stages.NewMonotonic(table.Shards())
}

// newCache answers serializable reads from memory, unless the file does not want it.
func newCache(cfg *conf.Config, shard *stages.Shard, monotonic *stages.Monotonic, log *slog.Logger) *cache.Cache {
	if cfg.Cache.Bytes == 0 {
		return nil
	}
	return cache.New(cache.Options{
		Shard: shard, Bytes: int64(cfg.Cache.Bytes), MaxAge: cfg.Cache.MaxAge, AuthInterval: cfg.Cache.AuthInterval,
		Monotonic: monotonic, Logger: log,
	})
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
func (c *chains) newLeases(cfg *conf.Config, shards []*stages.Shard, one *ordered, log *slog.Logger) lease.Service {
	o := lease.Options{
		Home: shards[0], Shards: shards,
		KeepAliveStreams: cfg.Lease.KeepAliveStreams, Logger: log,
	}
	if c.space != nil {
		o.Draw = c.space.DrawLease
	}
	switch {
	case one != nil:
		o.Home = one.home
		o.Deleted, o.End, o.Header, o.Settled = one.order.CoverOn, one.order.EndLease, one.order.HeaderNow, one.order.SettleOn
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
