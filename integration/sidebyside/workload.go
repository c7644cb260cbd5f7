package main

import "context"

// workload is one thing clients do, measured on every target in turn.
type workload struct {
	name string
	what string               // one line for the table
	on   func(t *target) bool // nil: on every target
	run  func(ctx context.Context, t *target, p plan) (result, error)
}

// workloads are all of them. Names ending in -1 have one client, in -N as many as
// -clients says.
var workloads = []workload{
	{name: "get-1", what: "one key, linearizable", run: alone(get)},
	{name: "get-N", what: "one key, linearizable", run: many(get)},
	{name: "sget-N", what: "one key, serializable (grpc-proxy and sharder-1 answer from a cache)", run: many(serializableGet)},
	{name: "put-1", what: "one key of 128 bytes", run: alone(put)},
	{name: "put-N", what: "one key of 128 bytes", run: many(put)},
	{name: "routed-N", what: "put-N as a Txn that checks the routes", on: direct, run: many(routed)},
	{name: "guarded-N", what: "put-N as a Txn that checks the routes and the fence, as sharder sends it", on: direct, run: many(guarded)},
	{name: "txn-1", what: "if mod revision then put else get", run: alone(txn)},
	{name: "txn-N", what: "if mod revision then put else get", run: many(txn)},
	{name: "cross-1", what: "two keys of 128 bytes on two shards, in one Txn", on: oneEtcdOrOrdered, run: alone(cross)},
	{name: "cross-N", what: "two keys of 128 bytes on two shards, in one Txn", on: oneEtcdOrOrdered, run: many(cross)},
	{name: "crossif-1", what: "if the mod revisions of two keys on two shards then put both else get both", on: oneEtcdOrOrdered, run: alone(crossIf)},
	{name: "crossif-N", what: "if the mod revisions of two keys on two shards then put both else get both", on: oneEtcdOrOrdered, run: many(crossIf)},
	{name: "beside-N", what: "put-N while as many clients do cross-N", on: ordered, run: putBeside},
	{name: "list-1", what: "1000 keys of one shard", run: alone(list("list/"))},
	{name: "list-N", what: "1000 keys of one shard", run: many(list("list/"))},
	{name: "slist-N", what: "1000 keys of one shard, serializable (grpc-proxy and sharder-1 answer from a cache)", run: many(serializableList("list/"))},
	{name: "span-1", what: "1000 keys, a third on each of three shards", on: several, run: alone(list("span/"))},
	{name: "span-N", what: "1000 keys, a third on each of three shards", on: several, run: many(list("span/"))},
	{name: "watch-paced", what: "20 puts per second to one key, how late its watchers are; at etcd: watchers opened", run: watchPaced},
	{name: "watch-full", what: "puts to one key as fast as its watchers take them; at etcd: watchers opened", run: watchFull},
	{name: "feed-one", what: "1000 events per second over a range of one shard", run: feedCell("solo/")},
	{name: "feed-three", what: "1000 events per second over a range of three shards", on: several, run: feedCell("feed/")},
	{name: "progress-N", what: "progress requests, a stream with one idle watch per client", on: answersProgress, run: progress},
	{name: "log-32", what: "what 32 sharders do to an order cluster: put to one key, wait for it on a watch of it", on: direct, run: commitLog},
	{name: "idle", what: "connections that are silent: memory of each, of what stands in front", on: gateways, run: idle},
	{name: "keepalive-N", what: "keep-alives of one lease, a stream per client; at etcd: keep-alives per client's", run: keepAlive},
	{name: "leases-500", what: "500 leases on 8 streams, kept alive once a second", run: keepMany(8)},
	{name: "nodes-500", what: "500 leases, each kept alive on a stream of its own once a second", run: keepMany(manyLeases)},
}

// runs reports whether the workload is measured on a target.
func (w workload) runs(t *target) bool { return w.on == nil || w.on(t) }

// direct is etcd itself.
func direct(t *target) bool { return t.proxy == nil }

// several is etcd itself and the targets with several shards.
func several(t *target) bool { return t.proxy == nil || len(t.shards) > 1 }

// answersProgress is all but grpc-proxy, which keeps progress requests to itself.
func answersProgress(t *target) bool { return !t.ownPace }

// alone measures a request with one client.
func alone(make func(*target, int) request) func(context.Context, *target, plan) (result, error) {
	return func(ctx context.Context, t *target, p plan) (result, error) {
		return runLoop(ctx, t, p, 1, make(t, 1))
	}
}

// many measures a request with as many clients as the plan has.
func many(make func(*target, int) request) func(context.Context, *target, plan) (result, error) {
	return func(ctx context.Context, t *target, p plan) (result, error) {
		return runLoop(ctx, t, p, p.clients, make(t, p.clients))
	}
}
