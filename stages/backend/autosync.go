package backend

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"time"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"

	"github.com/sharder/sharder/stages"
)

// syncTimeout bounds the question who the members are.
const syncTimeout = 5 * time.Second

// sync asks the cluster who its members are, and gives the time until it is asked again:
// soon, as long as it has not told yet.
func (k *keeper) sync(ctx context.Context) time.Duration {
	c := k.cluster
	if !c.Healthy() {
		return c.pauseOf(k.synced)
	}
	bounded, cancel := context.WithTimeout(stages.Own(ctx), syncTimeout)
	defer cancel()
	reply, err := pb.NewClusterClient(c).MemberList(bounded, &pb.MemberListRequest{Linearizable: true})
	var eps []endpoint
	if err == nil {
		eps, err = c.memberEndpoints(reply, k.base())
	}
	switch {
	case ctx.Err() != nil:
	case err != nil:
		c.opts.Logger.Warn("the members could not be found out; the endpoints that are known stay", "shard", c.opts.Name, "error", err)
	default:
		k.synced = eps
	}
	return c.pauseOf(k.synced)
}

// pauseOf is the time until the members are to be asked for again.
func (c *Cluster) pauseOf(known []endpoint) time.Duration {
	if len(known) == 0 {
		return min(c.opts.HealthInterval, c.opts.AutoSyncInterval)
	}
	return c.opts.AutoSyncInterval
}

// memberEndpoints makes endpoints of the client URLs of those members that have started
// and are no learners, as etcd's own clients do. Where the endpoints that were written or
// discovered are spoken to over TLS, so are these: a URL that is not https is left out.
// What is known of an address from there, such as its priority, holds here, too; at all
// others there must be a member of this very cluster: a URL such as http://localhost:2379 means
// something else to each who reads it.
func (c *Cluster) memberEndpoints(reply *pb.MemberListResponse, base []endpoint) ([]endpoint, error) {
	secure := c.opts.TLS != nil || slices.ContainsFunc(base, func(e endpoint) bool { return e.secure })
	var out []endpoint
	var left []string
	for _, m := range reply.Members {
		if m.Name == "" || m.IsLearner {
			continue
		}
		for _, url := range m.ClientURLs {
			e, err := parseEndpoint(strings.TrimSuffix(url, "/"), c.opts.TLS)
			switch {
			case err != nil:
				left = append(left, fmt.Sprintf("%s (%v)", url, err))
				continue
			case secure && !e.secure:
				left = append(left, url+" (it is not https)")
				continue
			}
			same := func(o endpoint) bool { return o.key() == e.key() }
			e.cluster = reply.Header.GetClusterId()
			i := slices.IndexFunc(base, same)
			if e.socket != "" && i < 0 {
				left = append(left, url+" (a socket of the member's machine)")
				continue
			}
			if i >= 0 {
				e = base[i]
			}
			if !slices.ContainsFunc(out, same) && len(out) < maxEndpoints {
				out = append(out, e)
			}
		}
	}
	if len(out) == 0 {
		return nil, fmt.Errorf("no client URL of its members can be used: %s", strings.Join(left, ", "))
	}
	if len(left) > 0 {
		c.opts.Logger.Warn("client URLs of members are left out", "shard", c.opts.Name, "urls", strings.Join(left, ", "))
	}
	return out, nil
}
