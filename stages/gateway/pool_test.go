package gateway

import (
	"fmt"
	"math"
	"slices"
	"testing"

	"github.com/sharder/sharder/stages/discovery"
)

// picks takes n connections from a pool and counts them by address; with hold they stay open.
func picks(p *pool, n int, hold bool) map[string]int {
	got := map[string]int{}
	for range n {
		t := p.pick(nil)
		got[t.addr]++
		if !hold {
			p.release(t)
		}
	}
	return got
}

// etcd gateway gives the weights 1, 1, 1 as 205, 95, 0.
func TestWeightsAreKeptByEveryStrategy(t *testing.T) {
	for _, weights := range [][]uint16{{1, 1, 1}, {10, 10, 10}, {1, 2, 7}, {0, 0, 0}, {5, 0, 5}, {60000, 1, 30000}} {
		var es []discovery.Endpoint
		total := 0
		for i, w := range weights {
			es = append(es, discovery.Endpoint{Addr: fmt.Sprint(i), Weight: w})
			total += int(w)
		}
		for _, s := range Strategies {
			p := &pool{strategy: s}
			p.replace(es)
			const n = 12000
			got := picks(p, n, s == LeastConnections)
			for i, w := range weights {
				share := 1.0 / float64(len(weights))
				switch none := slices.Contains(weights, 0); {
				case total == 0:
				case none && s == Random: // all without a weight have one chance together
					share = float64(max(1, w)) / float64(total+1)
				case w == 0:
					share = 0 // "a very small chance" is what the RFC asks for
				default:
					share = float64(w) / float64(total)
				}
				// Five standard deviations of a fair draw, and the rounding of small weights.
				if off := math.Abs(float64(got[fmt.Sprint(i)]) - n*share); s != LeastConnections && off > 5*math.Sqrt(n*share*(1-share))+n/100 {
					t.Errorf("%s %v: endpoint %d has %d of %d", s, weights, i, got[fmt.Sprint(i)], n)
				}
				if s == LeastConnections && w > 0 && total < 100 && math.Abs(float64(got[fmt.Sprint(i)])-n*share) > n/6 {
					t.Errorf("%s %v: endpoint %d has %d of %d", s, weights, i, got[fmt.Sprint(i)], n)
				}
			}
		}
	}
}

// etcd gateway ignores the priority of endpoints without weight.
func TestOnlyTheBestPriorityThatAnswersIsUsed(t *testing.T) {
	for _, s := range Strategies {
		p := &pool{strategy: s}
		p.replace([]discovery.Endpoint{{Addr: "c", Priority: 20}, {Addr: "a"}, {Addr: "b", Priority: 10}, {Addr: "a2", Weight: 3}})
		got := picks(p, 100, false)
		if got["b"]+got["c"] > 0 {
			t.Fatal(s, got)
		}
		for _, x := range p.all {
			p.report(x, x.addr == "b" || x.addr == "c")
		}
		if got := picks(p, 100, false); got["b"] != 100 {
			t.Fatal(s, got)
		}
		for _, x := range p.all {
			p.report(x, false)
		}
		var tried []*target
		for range 4 {
			tried = append(tried, p.pick(tried))
		}
		if p.pick(tried) != nil || tried[0].priority != 0 || tried[3].addr != "c" {
			t.Fatal(s, "all are tried, best first, when none answers:", tried)
		}
	}
}

func TestTheOneWithTheFewestConnectionsIsNext(t *testing.T) {
	p := &pool{strategy: LeastConnections}
	p.replace(mustEndpoints("a", "b", "c"))
	a, b, c := p.pick(nil), p.pick(nil), p.pick(nil)
	if a == b || b == c || a == c {
		t.Fatal("one has two, another none")
	}
	p.release(b)
	if next := p.pick(nil); next != b {
		t.Fatal("not the one without a connection")
	}
}

// What is known of an endpoint outlives a lookup; one that is named twice counts once.
func TestALookupKeepsWhatIsKnown(t *testing.T) {
	p := &pool{}
	p.replace(mustEndpoints("a", "b"))
	a := p.pick(nil)
	p.report(a, false)
	if added := p.replace(mustEndpoints("a", "c", "a")); len(added) != 1 || added[0].addr != "c" || len(p.all) != 2 {
		t.Fatal(added, len(p.all))
	}
	if up, down := p.status(); up != 1 || down != 1 || p.all[0] != a || a.open != 1 {
		t.Fatal(up, down)
	}
}

func mustEndpoints(addrs ...string) []discovery.Endpoint {
	es, _ := Fixed(addrs...)(nil)
	return es
}
