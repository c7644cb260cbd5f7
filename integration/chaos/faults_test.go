package chaos

import (
	"fmt"
	"math/rand/v2"
	"testing"
	"time"

	"github.com/sharder/sharder/integration/cable"
	"github.com/sharder/sharder/integration/etcdproc"
	"github.com/sharder/sharder/integration/witness"
)

// fault breaks something, and mends it before it returns.
type fault struct {
	name   string
	happen func()
}

// pause is how long something stays broken.
func (f *ordered) pause(r *rand.Rand) { time.Sleep(time.Duration(200+r.IntN(1200)) * time.Millisecond) }

// members are the faults of a cluster: its members die and freeze, or just one of them.
func (f *ordered) members(r *rand.Rand, name string, c *etcdproc.Cluster) []fault {
	return []fault{
		{name + " killed", func() { m := f.victim(r, c); c.Kill(m); f.pause(r); c.Start(m) }},
		{name + " frozen", func() { m := f.victim(r, c); c.Pause(m); f.pause(r); c.Resume(m) }},
	}
}

// victim is a member: the leader more often than not.
func (f *ordered) victim(r *rand.Rand, c *etcdproc.Cluster) int {
	f.t.Helper()
	if c.Len() > 1 && r.IntN(3) == 0 {
		return c.Follower()
	}
	return c.Leader()
}

// network are the faults between a sharder and a cluster.
func (f *ordered) network(r *rand.Rand, sharder, cluster int) []fault {
	lines := f.linesTo(sharder, cluster)
	each := func(do func(*cable.Cable)) {
		for _, l := range lines {
			do(l)
		}
	}
	name := fmt.Sprintf("network of sharder %d to cluster %d", sharder, cluster)
	return []fault{
		{name + " cut", func() { each((*cable.Cable).Cut); f.pause(r); each((*cable.Cable).Mend) }},
		{name + " silent", func() { each((*cable.Cable).Hold); f.pause(r); each((*cable.Cable).Release) }},
	}
}

// faults are all there are, in some order.
func (f *ordered) faults(r *rand.Rand) (all []fault) {
	for i, c := range f.clusters {
		name := fmt.Sprint("shard ", i)
		if i == 3 {
			name = "order"
		}
		all = append(all, f.members(r, name, c)...)
	}
	for i := range f.sharders {
		all = append(all, f.network(r, i, r.IntN(3))[r.IntN(2)], f.network(r, i, 3)[r.IntN(2)])
		all = append(all, fault{fmt.Sprint("sharder ", i, " killed"), func() { f.restart(i) }})
	}
	r.Shuffle(len(all), func(i, j int) { all[i], all[j] = all[j], all[i] })
	return all
}

// suffer lets everything happen while clients work, and judges what they saw.
func (f *ordered) suffer() {
	f.t.Helper()
	n := witness.Seed(f.t)
	r := rand.New(rand.NewPCG(n, 0))
	trial := witness.NewTrial(f.t, n, f.servers...)
	trial.Flowing("after the start")
	for range witness.Rounds(f.t) {
		for _, fault := range f.faults(r) {
			f.t.Log(fault.name)
			fault.happen()
			trial.Latecomers()
			trial.Flowing("after " + fault.name)
			trial.Compact()
		}
	}
	trial.Settle()
	trial.Judge()
}

func TestOneRevisionOutlivesEveryProcessAndEveryCable(t *testing.T) {
	startSharders(t, 3, 1, 1, 1, 1).suffer()
}

func TestOneRevisionOutlivesTheMembersOfItsClusters(t *testing.T) {
	startOrdered(t, 3, 1, 1, 3).suffer()
}

// One etcd is right by definition: the trial itself is under test here.
func TestTheTrialPassesOnOneEtcdThatIsKilledAndFrozen(t *testing.T) {
	c := etcdproc.Start(t, 1)
	s := witness.Dial(t, "etcd", hostPort(c.Endpoint(0)))
	trial := witness.NewTrial(t, witness.Seed(t), s, s)
	trial.Flowing("after the start")
	for range 2 {
		c.Kill(0)
		time.Sleep(300 * time.Millisecond)
		c.Start(0)
		trial.Latecomers()
		trial.Flowing("after its death")
		c.Pause(0)
		time.Sleep(2500 * time.Millisecond) // longer than a client waits
		c.Resume(0)
		trial.Latecomers()
		trial.Flowing("after a pause")
		trial.Compact()
	}
	time.Sleep(time.Second)
	trial.Judge()
}
