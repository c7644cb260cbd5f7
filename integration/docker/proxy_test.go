//go:build docker

package docker

import (
	"context"
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"
	"time"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	"google.golang.org/grpc/metadata"

	"github.com/sharder/sharder/integration/harness"
	"github.com/sharder/sharder/integration/ports"
	"github.com/sharder/sharder/integration/witness"
	"github.com/sharder/sharder/stages/members"
)

// startProxy starts `sharder grpc-proxy`, which clients reach through the first of the networks.
func startProxy(t testing.TB, alias string, endpoints []string, networks ...string) (*container, witness.Server) {
	t.Helper()
	addr := ports.Of(t)
	c := create(t, alias, image(t, harness.SharderPackage), networks, []string{"--publish", addr + ":" + clientPort},
		[]string{"grpc-proxy", "start", "--listen-addr", "0.0.0.0:" + clientPort, "--endpoints", strings.Join(endpoints, ",")})
	c.do("start")
	return c, witness.Dial(t, alias, addr)
}

// startProxies runs one etcd of three members and two proxies in front of it, and lets clients
// and watchers in.
func startProxies(t *testing.T, seed uint64) *fleet {
	t.Helper()
	f := &fleet{t: t, rand: rand.New(rand.NewPCG(seed, 0)), shardsNetwork: network(t, "--internal")}
	one := startCluster(t, "one", f.shardsNetwork, 3)
	f.shards = []*cluster{one}
	front := network(t)
	for _, name := range []string{"left", "right"} {
		c, s := startProxy(t, name, one.endpoints(), front, f.shardsNetwork)
		f.sharders, f.servers = append(f.sharders, c), append(f.servers, s)
	}
	for _, s := range f.servers {
		witness.Eventually(t, witness.Bound, s.Name+" serves", func() bool { return get(s, "a") == nil })
	}
	f.trial = witness.NewTrial(t, seed, f.servers...)
	f.trial.Flowing("after the start")
	return f
}

// proxyFaults are what befalls members, one after the other, and proxies, in some order: of each
// member two things out of three, and of the rest all, so that a round is not too long.
func (f *fleet) proxyFaults() (all []fault) {
	one := f.shards[0]
	for i, m := range one.members {
		name := fmt.Sprint("member ", i)
		some := []fault{f.killed(name, m), f.frozen(name, m), f.cutOff(name, f.shardsNetwork, m)}
		all = append(all, slices.Delete(some, i, i+1)...)
	}
	left, right := f.sharders[0], f.sharders[1]
	all = append(all, f.killed("proxy left", left), f.frozen("proxy right", right), f.cutOff("proxy left", f.shardsNetwork, left))
	quorum := f.frozen("two members", one.members[0], one.members[2])
	quorum.meanwhile = f.pause // no write can be acknowledged
	freeze := quorum.begin
	quorum.begin = func() { // the one that is left must not be one that is old
		f.level(one.members...)
		freeze()
	}
	all = append(all, quorum)
	f.rand.Shuffle(len(all), func(i, j int) { all[i], all[j] = all[j], all[i] })
	return all
}

// level waits until members have what is acknowledged now.
func (f *fleet) level(hosts ...*container) {
	f.t.Helper()
	all := &pb.RangeRequest{Key: []byte{0}, RangeEnd: []byte{0}, CountOnly: true}
	var now int64
	witness.Eventually(f.t, witness.Bound, "the newest revision is known", func() bool {
		o := f.trial.Ask(f.servers[0], time.Second, all)
		if o.Err == nil {
			now = o.Reply.(*pb.RangeResponse).Header.Revision
		}
		return o.Err == nil
	})
	for _, m := range hosts {
		witness.Eventually(f.t, witness.Bound, m.alias+" is level", func() bool {
			ctx, cancel := context.WithTimeout(f.t.Context(), time.Second)
			defer cancel()
			ctx = metadata.AppendToOutgoingContext(ctx, members.MemberKey, m.alias+":"+clientPort)
			s, err := pb.NewMaintenanceClient(f.servers[0].Conn).Status(ctx, &pb.StatusRequest{})
			return err == nil && s.Header.Revision >= now
		})
	}
}

// fresh is how old a serializable read may be: the cache's age at most, and the time until a member
// that doesn't answer, or knows no leader, is left; and as much again, on a machine that is busy.
const fresh = 10 * time.Second

// TestWatchersLeasesAndCachesOutliveEveryMember is a soak: whatever happens to members and proxies,
// watchers get every event once and in order, linearizable reads are the state at their
// header, leases that are kept alive stay and others end, and what is served from memory is
// not old.
func TestWatchersLeasesAndCachesOutliveEveryMember(t *testing.T) {
	const kept = 4
	f := startProxies(t, witness.Seed(t))
	hot := witness.ReadHot(f.trial.Log, f.servers...)
	tenants := witness.StartTenants(t, f.trial.Log, kept, f.servers...)
	for range witness.Rounds(t) {
		for _, x := range f.proxyFaults() {
			f.happen(x)
			tenants.Forget(f.servers[f.rand.IntN(len(f.servers))])
		}
	}
	f.trial.Settle()
	tenants.Settle()
	hot.Stop()
	timeline := f.trial.Judge()
	witness.CheckFresh(t, f.trial.Log, timeline, fresh)
	tenants.Check(timeline)
}
