package main

import (
	"context"
	"log/slog"
	"net"
	"os"

	"github.com/sourcegraph/conc"
	"google.golang.org/grpc"
	"google.golang.org/grpc/metadata"

	"github.com/sharder/sharder/conf"
	"github.com/sharder/sharder/stages"
	"github.com/sharder/sharder/stages/backend"
	"github.com/sharder/sharder/stages/members"
	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	"go.etcd.io/etcd/server/v3/proxy/grpcproxy/adapter"
)

// self is this sharder as a member that clients are told of.
func self(cfg *conf.Config) members.Self {
	first := cfg.Listeners()[0]
	s := members.Self{
		Name: processName(cfg), Addresses: cfg.Advertised(), Secure: cfg.TLS != nil,
		Scheme: schemes(cfg.Listeners()), Fallback: cfg.Listen[0],
	}
	host, port, err := net.SplitHostPort(first.Address)
	if ip := net.ParseIP(host); err == nil && (host == "" || ip != nil && ip.IsUnspecified()) {
		if name, err := os.Hostname(); err == nil {
			host = name
		}
		s.Fallback = scheme(first.TLS) + "://" + net.JoinHostPort(host, port)
	}
	if s.Name == "" {
		s.Name = s.Fallback
	}
	return s
}

// newRegistry is where this sharder registers, and finds the others; nil for one shard of
// which nothing was said. With a prefix that is among the keys of clients, and over several
// shards it is written through the chains, as a client would; else it is on home, where
// leases are at home, too, in keys of sharder's own.
func newRegistry(cfg *conf.Config, c *chains, home *stages.Shard, alone bool, log *slog.Logger) *members.Registry {
	o := members.Options{
		KV: pb.NewKVClient(home.Conn), Lease: pb.NewLeaseClient(home.Conn),
		Prefix: cfg.Registration.Prefix, TTL: cfg.Registration.TTL, Logger: log,
	}
	switch {
	case alone && o.Prefix == "":
		return nil
	case o.Prefix == "":
		o.Prefix, o.LeaseID = stages.MembersPrefix, stages.DrawOwnLease
	default:
		o.Prefix = string(cfg.Namespace) + o.Prefix // clients find it without
	}
	if !alone && cfg.Registration.Prefix != "" {
		o.KV = adapter.KvServerToKvClient(kvService{chains: c})
		o.Lease = adapter.LeaseServerToLeaseClient(leaseService{chains: c})
	}
	return members.NewRegistry(o, self(cfg))
}

// memberHeader asks the one shard for its members, as the client: so the shard says whether
// he may know, waits for its quorum if that is wanted, and gives the header.
func memberHeader(shard *stages.Shard) func(context.Context, *pb.MemberListRequest) (*pb.ResponseHeader, error) {
	cluster := pb.NewClusterClient(shard.Conn)
	return func(ctx context.Context, r *pb.MemberListRequest) (*pb.ResponseHeader, error) {
		var header, trailer metadata.MD
		resp, err := cluster.MemberList(stages.ForwardMetadata(ctx), r, grpc.Header(&header), grpc.Trailer(&trailer))
		if err != nil {
			return nil, &stages.ShardError{Shard: shard, Err: err, Header: header, Trailer: trailer}
		}
		return resp.Header, nil
	}
}

// register has this sharder registered until leave is called, which returns when it is not
// any more, or members.LeaveTimeout is over.
func (c *chains) register(ctx context.Context) (leave func()) {
	if c.registry == nil {
		return func() {}
	}
	ctx, stop := context.WithCancel(ctx)
	var wg conc.WaitGroup
	wg.Go(func() { c.registry.Run(ctx) })
	return func() {
		stop()
		wg.Wait()
	}
}

// addressed are the clusters whose members clients may address.
func (f *fleet) addressed() (all []*members.Cluster) {
	add := func(s *stages.Shard, c *backend.Cluster) {
		all = append(all, &members.Cluster{Shard: s, State: func() []members.State {
			var states []members.State
			for _, m := range c.Members() {
				states = append(states, members.State{
					Endpoint: m.Endpoint, ID: m.ID, Healthy: m.Healthy, Leader: m.Leader, Learner: m.Learner, Err: m.Err,
				})
			}
			return states
		}})
	}
	for i, s := range f.shards {
		add(s, f.clusters[i])
	}
	if f.central != nil {
		add(f.central.home, f.central.cluster)
	}
	return all
}
