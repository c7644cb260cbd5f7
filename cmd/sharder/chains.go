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
	"github.com/sharder/sharder/stages/watch"
	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	"go.etcd.io/etcd/api/v3/mvccpb"
)

// This file is the picture of the whole: every RPC's chain, top to bottom. A request
// goes through
//
//	door ═► decode ─► route ─► scatter ═► call (per shard) ═► gather ─► encode
//
// where ═► is a bounded link and ─► a plain call on the request's own goroutine. The
// door bounds the requests inside the process, a shard's lane the calls in flight to
// that shard. Streams are pipelines of their own: RangeStream, Watch, LeaseKeepAlive.
//
// There are two shapes of the same chains. One shard: a transparent proxy; the shard
// sees the client's identity and answers for itself. Several shards: keys that begin
// with a NUL byte are sharder's own, leases have a home, and what can't be right
// without one order over all shards is refused. Nothing below this file asks which
// shape it is in.

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

	watch  *watch.Server
	leases lease.Service
	others grpc.StreamHandler // services that are not in this file
	relay  *stages.Relay      // serves them for one shard, nil for several
}

// newChains writes the chains out. One shard is shape A, several are shape B.
func newChains(cfg *conf.Config, table *stages.Table, log *slog.Logger) *chains {
	var (
		c      = &chains{}
		shards = table.Shards()
		alone  = len(shards) == 1
		decode = stages.Decoder{Reserve: !alone}
		route  = stages.RouteOp(table)
		door   = pipeline.NewLink(cfg.Limits.Requests, cfg.Limits.RequestsWaiting)
	)
	c.leases = newLeases(cfg, shards, log)
	c.watch = newWatch(cfg, table, decode, c.leases, log)

	// One call to one shard, as every KV request makes it: the lease a Put names is
	// made known to the shard first; then the shard's lane; what comes back tells the
	// watches how far the shard has come.
	var call pipeline.Stage[stages.Call, stages.Reply]
	if alone {
		call = pipeline.Wrap(stages.CallShard, stages.Lane, c.watch.Observe, stages.ForwardIdentity)
	} else {
		call = pipeline.Wrap(stages.CallShard, c.leases.Attach(), stages.Lane, c.watch.Observe)
	}

	c.rng = pipeline.Queue(door, pipeline.Chain3(
		decode.Range,
		pipeline.Wrap(
			pipeline.Chain3(route, pipeline.Scatter(call), stages.MergeRange),
			stages.RetryWhole,
		),
		stages.EncodeRange,
	))
	c.put = pipeline.Queue(door, pipeline.Chain5(
		decode.Put,
		route,
		pipeline.Scatter(call),
		stages.Gather,
		stages.EncodePut,
	))
	c.deleteRange = pipeline.Queue(door, pipeline.Chain5(
		decode.DeleteRange,
		route,
		stages.ScatterDelete(call),
		stages.MergeDelete,
		stages.EncodeDeleteRange,
	))
	c.txn = pipeline.Queue(door, pipeline.Chain5(
		decode.Txn,
		route,
		pipeline.Scatter(call),
		stages.Gather,
		stages.EncodeTxn,
	))
	if alone {
		c.compact = pipeline.Queue(door, compactOne(shards[0], c.watch))
	} else {
		c.compact = stages.RefuseCompact
	}
	c.rangeStream = stages.RangeStream(table, streamOptions(cfg, decode, call, c.leases, alone))

	c.leaseGrant = pipeline.Queue(door, c.leases.Grant)
	c.leaseRevoke = pipeline.Queue(door, c.leases.Revoke)
	c.leaseTimeToLive = pipeline.Queue(door, c.leases.TimeToLive)
	c.leaseLeases = pipeline.Queue(door, c.leases.Leases)

	if alone {
		c.relay = stages.NewRelay(shards[0])
		c.others = c.relay.Handle
	} else {
		c.others = stages.RefuseOthers
	}
	return c
}

// newLeases gives one shard's leases as they are, or several shards' leases a home on
// the first shard.
func newLeases(cfg *conf.Config, shards []*stages.Shard, log *slog.Logger) lease.Service {
	o := lease.Options{
		Home: shards[0], Shards: shards,
		KeepAliveStreams: cfg.Lease.KeepAliveStreams, Logger: log,
	}
	if len(shards) == 1 {
		return lease.NewRelay(o)
	}
	return lease.New(o)
}

func newWatch(cfg *conf.Config, table *stages.Table, decode stages.Decoder, leases lease.Service, log *slog.Logger) *watch.Server {
	o := watch.Options{
		Table: table, Decoder: decode,
		Queue: cfg.Watch.Queue, QueueBytes: int64(cfg.Watch.QueueBytes), HistoryBytes: int64(cfg.Watch.HistoryBytes),
		CatchUps: cfg.Watch.CatchUps, ProgressInterval: cfg.Watch.ProgressInterval,
		FragmentBytes: int64(cfg.MaxRequestBytes) + requestOverhead,
		Logger:        log,
	}
	if len(table.Shards()) == 1 {
		o.Identity = identity
	} else {
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

func streamOptions(cfg *conf.Config, decode stages.Decoder, call pipeline.Stage[stages.Call, stages.Reply], leases lease.Service, alone bool) stages.StreamOptions {
	o := stages.StreamOptions{Decoder: decode, Call: call, PageBytes: int(cfg.Limits.StreamPage)}
	if alone {
		o.Context = stages.ForwardMetadata
	} else {
		o.Translate = func(ctx context.Context, _ *stages.Shard, kvs []*mvccpb.KeyValue) ([]*mvccpb.KeyValue, error) {
			return leases.TranslateKV(ctx, kvs)
		}
	}
	return o
}
