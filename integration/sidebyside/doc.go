// Command sidebyside measures what a hop through sharder costs, beside the two things
// one would compare it with: etcd without anything in front, and etcd's own grpc-proxy.
//
//	go run ./integration/sidebyside
//	go run ./integration/sidebyside -seconds 1 -rounds 1 -only get-1,watch-full
//
// It builds etcd (of this module's version) and sharder, runs everything as processes
// on free loopback ports, measures, prints tables in Markdown to stdout, and stops what
// it started. Progress goes to stderr.
//
// What stands (layouts.go):
//
//	etcd        one etcd, asked directly
//	grpc-proxy  etcd grpc-proxy in front of that same etcd
//	sharder-1   sharder in front of that same etcd: one shard, shape A
//	sharder-3   sharder in front of three further etcds: three shards, shape B
//	sharder-C   sharder in front of three more, and one that holds their order: shape C
//
// and with -share, to see what shards add when they are the limit, shape C twice, each
// shard kept to that share of a CPU by a control group of Linux (quota.go), which takes
// root:
//
//	shards-1    one shard and its order
//	shards-4    four shards and their order
//
// With -gateways the two programs that pass connections on stand in front of one etcd:
//
//	etcd-gateway     etcd gateway
//	sharder-gateway  sharder gateway
//
// With -hop only etcd, grpc-proxy and sharder-1 stand. Here, and with -gateways, -builds adds
// other builds of sharder, such as that of the commit before: what a change is worth is seen
// in one run, or not at all.
//
// A cell is one workload on one target for a moment; within a round of a workload the
// targets take turns, so that whatever else the machine does hits all alike, and a
// ratio compares cells of the same round. etcd runs with --unsafe-no-fsync: with the
// disk in it a write costs what the disk costs, whoever stands in front. With -fsync it
// waits for the disk that -dir lies on, and with -slower-disk for a slower one
// (slowdisk.go).
//
// What the numbers mean and don't mean is in docs/performance.md.
package main
