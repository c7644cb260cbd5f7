//go:build docker

package docker

import (
	"slices"
	"testing"
	"time"

	"github.com/sharder/sharder/integration/witness"
)

// fault is something that breaks, is broken for a while, and is mended.
type fault struct {
	name      string
	begin     func()
	meanwhile func() // what must be so while it lasts
	end       func()
}

// killed, frozen and cutOff are what happens to hosts: they die and are started again,
// stand still and go on, are taken off a network and join it again.
func (f *fleet) killed(what string, hosts ...*container) fault {
	return f.befalls(what+" killed", hosts, func(c *container) { c.do("kill") }, func(c *container) { c.do("start") })
}

func (f *fleet) frozen(what string, hosts ...*container) fault {
	return f.befalls(what+" frozen", hosts, func(c *container) { c.do("pause") }, func(c *container) { c.do("unpause") })
}

func (f *fleet) cutOff(what, network string, hosts ...*container) fault {
	return f.befalls(what+" cut off", hosts, func(c *container) { c.cutOff(network) }, func(c *container) { c.rejoin(network) })
}

// befalls is a fault of all the hosts at once, and others go on meanwhile.
func (f *fleet) befalls(name string, hosts []*container, begin, end func(*container)) fault {
	each := func(do func(*container)) func() {
		return func() {
			for _, h := range hosts {
				do(h)
			}
		}
	}
	return fault{name, each(begin), func() { f.trial.FlowingBy(5, "with "+name) }, each(end)}
}

// happen lets a fault happen, with watches that begin while it lasts and behind it.
func (f *fleet) happen(x fault) {
	f.t.Helper()
	start := time.Now()
	x.begin()
	x.meanwhile()
	f.trial.Latecomers()
	f.pause()
	x.end()
	mended := time.Now()
	f.trial.Flowing("after " + x.name)
	f.trial.Serving()
	f.trial.Latecomers()
	f.t.Logf("%s for %v; all served %v later", x.name, mended.Sub(start).Round(time.Millisecond), time.Since(mended).Round(time.Millisecond))
}

// pause is how long a fault lasts after what must be so was seen to be so.
func (f *fleet) pause() { time.Sleep(time.Duration(200+f.rand.IntN(2000)) * time.Millisecond) }

// faults are those that some keys or servers outlive, in some order.
func (f *fleet) faults() (all []fault) {
	r, order, one := f.rand, f.rand.Perm(3), f.shards[0]
	all = append(all,
		f.killed("an order member", f.order.members[order[0]]),
		f.frozen("an order member", f.order.members[order[1]]),
		f.cutOff("an order member", f.order.network, f.order.members[order[2]]),
	)
	member := one.members[r.IntN(len(one.members))]
	all = append(all, []fault{
		f.killed("a member of a shard", member), f.frozen("a member of a shard", member), f.cutOff("a member of a shard", f.shardsNetwork, member),
	}[r.IntN(3)])
	two, three := f.shards[1], f.shards[2]
	all = append(all, f.killed("shard two", two.members...), f.frozen("shard three", three.members...), f.cutOff("shard two", f.shardsNetwork, two.members...))
	left, right := f.sharders[0], f.sharders[1]
	all = append(all, f.killed("sharder left", left), f.frozen("sharder right", right), f.cutOff("sharder left", f.shardsNetwork, left))
	everything := f.frozen("every shard", slices.Concat(one.members, two.members, three.members)...)
	everything.meanwhile = f.pause // nobody can say anything
	all = append(all, everything)
	r.Shuffle(len(all), func(i, j int) { all[i], all[j] = all[j], all[i] })
	return all
}

func TestOneRevisionOutlivesEveryHost(t *testing.T) {
	f := startFleet(t, witness.Seed(t), 3, 1, 1)
	for range witness.Rounds(t) {
		for _, x := range f.faults() {
			f.happen(x)
		}
	}
	f.trial.Settle()
	f.trial.Judge()
}
