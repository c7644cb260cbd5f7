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
// What stands (stand.go):
//
//	etcd        one etcd, asked directly
//	grpc-proxy  etcd grpc-proxy in front of that same etcd
//	sharder-1   sharder in front of that same etcd: one shard, shape A
//	sharder-3   sharder in front of three further etcds: three shards, shape B
//
// A cell is one workload on one target for a moment; within a round of a workload the
// targets take turns, so that whatever else the machine does hits all alike, and a
// ratio compares cells of the same round. etcd runs with --unsafe-no-fsync: with the
// disk in it a write costs what the disk costs, whoever stands in front.
//
// What the numbers mean and don't mean is in docs/performance.md.
package main
