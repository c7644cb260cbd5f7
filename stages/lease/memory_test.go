package lease

import (
	"context"
	"math"
	"os/exec"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"
)

func TestIDsAreInTheHalvesTheirSignsSay(t *testing.T) {
	for range 10000 {
		if id := drawID(); id <= 0 {
			t.Fatal(id)
		}
		if id := drawAlias(1); id >= 0 || id < lowest {
			t.Fatal(id)
		}
		if id := drawAlias(-1); id >= lowest || id == never {
			t.Fatal(id)
		}
	}
	for _, id := range []int64{0, 1, -1, math.MaxInt64, math.MinInt64} {
		if got, rest, ok := idOf(attachKey(id, "x/y"), attachPrefix); !ok || got != id || rest != "/x/y" {
			t.Fatalf("%d came back as %d, %q, %v", id, got, rest, ok)
		}
	}
}

func TestWhatIsRememberedIsBounded(t *testing.T) {
	k := newKnown(3)
	for id := range int64(5) {
		k.learn(record{id: id + 1, shardID: -id - 1, born: 1})
	}
	if k.leases.len() != 3 || k.aliases.len() != 3 {
		t.Fatal(k.leases.len(), k.aliases.len())
	}
	if _, ok := k.lease(3); !ok {
		t.Fatal("the third of five was dropped")
	}
	k.learn(record{id: 6, shardID: -6, born: 1})
	if _, ok := k.lease(3); !ok {
		t.Fatal("what was used last was dropped")
	}
}

func TestAnOlderLeaseDoesNotDisplaceAYoungerOne(t *testing.T) {
	k := newKnown(3)
	old, young := record{id: 7, shardID: -1, born: 1}, record{id: 7, shardID: -2, born: 2}
	k.learn(old)
	k.attach(old, 1)
	if !k.attached(old, 1) || k.attached(old, 2) || k.attached(young, 1) {
		t.Fatal("attached wrongly")
	}
	k.learn(young)
	k.learn(old)
	k.attach(old, 2)
	if r, _ := k.lease(7); r != young || k.attached(young, 1) || k.attached(young, 2) {
		t.Fatal(r)
	}
	k.forget(7)
	k.attach(young, 1)
	if _, ok := k.lease(7); ok {
		t.Fatal("revived")
	}
}

func TestDebtsComeWhenTheyAreDue(t *testing.T) {
	d := newDebts(4)
	now := time.Now()
	for id, wait := range map[int64]time.Duration{1: 30, 2: 10, 3: 20, 4: 40} {
		d.add(id, now.Add(wait*time.Millisecond))
	}
	d.add(5, now)                           // no room
	d.add(4, now.Add(15*time.Millisecond))  // sooner than before
	d.add(3, now.Add(500*time.Millisecond)) // later: stays
	d.remove(1)
	d.remove(99)
	var got []int64
	for range 3 {
		b, ok := d.next(context.Background())
		if !ok || time.Now().Before(b.due) {
			t.Fatalf("%v, %v", b, ok)
		}
		got = append(got, b.id)
	}
	if !slices.Equal(got, []int64{2, 4, 3}) {
		t.Fatal(got)
	}
	if first, second := d.short(), d.short(); !first || second {
		t.Fatal("that one was lost has to be told once")
	}
	if _, ok := d.next(canceled()); ok {
		t.Fatal("something out of nothing")
	}
	d.again(debt{id: 9, tries: 3}, now)
	b, _, ok := d.take(now.Add(900 * time.Millisecond))
	if !ok || b.tries != 4 || b.due.Sub(now) != 800*time.Millisecond || d.size() != 0 {
		t.Fatal(b, ok)
	}
	d.again(debt{id: 9, tries: 30}, now)
	d.hurry()
	if _, _, ok := d.take(time.Now()); !ok {
		t.Fatal("not hurried")
	}
}

func TestABreakerLetsOneTryPerSecondAndAllWhenTheShardIsBack(t *testing.T) {
	synctest.Test(t, breakerTries)
}

func breakerTries(t *testing.T) {
	back := 0
	b := &breaker{onUp: func() { back++ }}
	b.report(true)
	all := func() bool {
		first, second := b.allow(), b.allow()
		return first && second
	}
	if !all() || back != 0 {
		t.Fatal("closed breaker")
	}
	b.report(false)
	if b.allow() {
		t.Fatal("let through right after a failure")
	}
	time.Sleep(probeEvery)
	if first, second := b.allow(), b.allow(); !first || second {
		t.Fatal("want one try")
	}
	b.report(true)
	if !all() || back != 1 {
		t.Fatal("shard is back")
	}
}

func TestWaitersShareAnAttachButNotTheEndOfItsLeader(t *testing.T) {
	fs := newFlights()
	ctx, cancel := context.WithCancel(context.Background())
	leading, entered := make(chan error), make(chan struct{})
	go func() {
		_, err := fs.do(ctx, flightKey{1, 1}, func() (bool, error) {
			close(entered)
			<-ctx.Done()
			return false, ctx.Err()
		})
		leading <- err
	}()
	<-entered
	following := make(chan bool)
	go func() {
		ok, _ := fs.do(context.Background(), flightKey{1, 1}, func() (bool, error) { return true, nil })
		following <- ok
	}()
	if _, err := fs.do(canceled(), flightKey{1, 1}, nil); err == nil {
		t.Fatal("a waiter outlived its context")
	}
	cancel()
	if err := <-leading; err == nil {
		t.Fatal("leader")
	}
	if !<-following {
		t.Fatal("follower")
	}
}

func TestThisPackageKnowsNothingOfBackendWatchAndOrder(t *testing.T) {
	out, err := exec.Command("go", "list", "-deps", ".").Output()
	if err != nil {
		t.Fatal(err)
	}
	for _, dep := range strings.Fields(string(out)) {
		for _, other := range []string{"/stages/backend", "/stages/watch", "/stages/order"} {
			if strings.HasSuffix(dep, other) {
				t.Errorf("imports %s", dep)
			}
		}
	}
}
