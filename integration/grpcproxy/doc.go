// Package grpcproxy holds the proof that sharder takes the place of etcd grpc-proxy and has
// none of its faults. Each probe asks a door, over the wire and with several clients, for
// something that grpc-proxy is known to get wrong; the door is an etcd itself, or
// `sharder grpc-proxy start` in front of an equal one, started as a process with etcd's own
// flags. What is seen must be the same.
//
// With PROBE_ETCD_PROXY=1 in the environment the probes look through etcd's own grpc-proxy as
// well, and fail where they see no difference: so it is known of each that it can fail. What
// grpc-proxy of the etcd in go.mod does is told by the field fault of each probe.
package grpcproxy
