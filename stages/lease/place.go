package lease

import (
	"github.com/sharder/sharder/stages"
	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
)

// place is a cluster as a Manager uses it: a shard, or a home apart from the shards.
// It is made by newPlaces and lives as long as the Manager.
type place struct {
	shard    *stages.Shard
	kv       pb.KVClient
	lease    pb.LeaseClient
	health   *breaker
	renewals *renewals
	keys     bool // clients' keys may be here: what is revoked here has to be covered
}

// places are all clusters of a Manager. Those that may hold clients' keys, and may
// have leases of their own from before sharder came, are one thing, home is another;
// they may overlap. A shard and a home apart may have the same name, so only names in
// attach records, which are never about home, are looked up.
type places struct {
	home   *place
	shards []*place // as in Options.Shards
	all    map[*stages.Shard]*place
}

func newPlaces(o Options, onUp func()) places {
	ps := places{all: make(map[*stages.Shard]*place)}
	add := func(s *stages.Shard, keys bool) *place {
		p := &place{shard: s, kv: pb.NewKVClient(s.Conn), lease: pb.NewLeaseClient(s.Conn),
			health: &breaker{onUp: onUp}, renewals: newRenewals(s, o), keys: keys}
		ps.all[s] = p
		return p
	}
	for _, s := range o.Shards {
		ps.shards = append(ps.shards, add(s, true))
	}
	if ps.home = ps.all[o.Home]; ps.home == nil {
		ps.home = add(o.Home, false)
	}
	return ps
}

// of gives the place of a shard or of home.
func (ps places) of(s *stages.Shard) *place { return ps.all[s] }

// named finds the shard that an attach record is about; nil if it isn't configured.
func (ps places) named(name string) *place {
	for _, p := range ps.shards {
		if p.shard.Name == name {
			return p
		}
	}
	return nil
}
