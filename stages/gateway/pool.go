package gateway

import (
	"math/rand/v2"
	"slices"
	"sync"

	"github.com/sharder/sharder/stages/discovery"
)

// target is an endpoint and what is known of it. It stays the same while the endpoint
// stays among those that Options.Endpoints gives.
type target struct {
	addr string

	// Guarded by the pool's mutex.
	priority, weight uint16
	down             bool // it did not answer when it was asked last
	open             int  // connections
	credit           int  // of the round robin: what is due to it
}

// pool is the endpoints there are, and picks among them.
type pool struct {
	mu       sync.Mutex
	strategy Strategy
	all      []*target
}

// pickBy changes the strategy.
func (p *pool) pickBy(s Strategy) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.strategy = s
}

// replace takes over a new list; what is known of those that stay is kept. It returns the
// targets that are new.
func (p *pool) replace(es []discovery.Endpoint) (added []*target) {
	p.mu.Lock()
	defer p.mu.Unlock()
	had := p.all
	p.all = make([]*target, 0, len(es))
	for _, e := range es {
		i := slices.IndexFunc(had, func(t *target) bool { return t.addr == e.Addr })
		t := &target{addr: e.Addr}
		if i >= 0 {
			t = had[i]
		} else {
			added = append(added, t)
		}
		if slices.Contains(p.all, t) {
			continue // named twice
		}
		t.priority, t.weight = e.Priority, e.Weight
		p.all = append(p.all, t)
	}
	return added
}

// targets are all of now.
func (p *pool) targets() []*target {
	p.mu.Lock()
	defer p.mu.Unlock()
	return slices.Clone(p.all)
}

// report notes whether a target answers, and tells whether that is news.
func (p *pool) report(t *target, up bool) (changed bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	changed = t.down == up
	t.down = !up
	return changed
}

// status counts the targets that answer and those that don't.
func (p *pool) status() (up, down int) {
	for _, t := range p.targets() {
		p.mu.Lock()
		if t.down {
			down++
		} else {
			up++
		}
		p.mu.Unlock()
	}
	return up, down
}

// pick takes the target that gets the next connection, and counts that as open; nil if
// all were tried. Of those that answer it is one of the best priority. Where none does the others are
// tried: a probe may not have noticed yet that one is back.
func (p *pool) pick(tried []*target) *target {
	p.mu.Lock()
	defer p.mu.Unlock()
	var class []*target
	for _, t := range p.all {
		if slices.Contains(tried, t) {
			continue
		}
		switch {
		case len(class) == 0, better(t, class[0]):
			class = append(class[:0], t)
		case !better(class[0], t):
			class = append(class, t)
		}
	}
	if len(class) == 0 {
		return nil
	}
	var t *target
	switch p.strategy {
	case Random:
		t = byChance(class)
	case LeastConnections:
		t = fewest(class)
	default:
		t = inTurn(class)
	}
	t.open++
	return t
}

// release counts a connection as closed.
func (p *pool) release(t *target) {
	p.mu.Lock()
	defer p.mu.Unlock()
	t.open--
}

func better(a, b *target) bool {
	if a.down != b.down {
		return b.down
	}
	return a.priority < b.priority
}

// sum adds up the weights of a class.
func sum(class []*target) (n int) {
	for _, t := range class {
		n += int(t.weight)
	}
	return n
}

// byChance picks as RFC 2782 wants it: in proportion to the weights, and where there are
// others, one without a weight now and then: all of those together as if they had 1 of sum+1.
func byChance(class []*target) *target {
	total := sum(class)
	n := rand.IntN(total + 1)
	if n == total {
		var none []*target
		for _, t := range class {
			if t.weight == 0 {
				none = append(none, t)
			}
		}
		if len(none) > 0 {
			return none[rand.IntN(len(none))]
		}
		n = rand.IntN(total)
	}
	for _, t := range class {
		if n -= int(t.weight); n < 0 {
			return t
		}
	}
	return class[0] // not reached: n is below the sum
}

// inTurn is the smooth weighted round robin that nginx uses: each turn everybody gets
// credit as its weight, and the one with the most pays for all. Without weights it is the
// plain one; next to others, no weight is a hundredth of one.
func inTurn(class []*target) *target {
	const unit = 100
	total, best := 0, class[0]
	for _, t := range class {
		w := max(1, int(t.weight)*unit)
		total += w
		t.credit += w
		if t.credit > best.credit {
			best = t
		}
	}
	best.credit -= total
	return best
}

// fewest picks the target with the fewest connections for its weight; of several, in turn.
func fewest(class []*target) *target {
	load := func(t *target) float64 { return float64(t.open) / float64(max(1, t.weight)) }
	least := load(class[0])
	for _, t := range class {
		least = min(least, load(t))
	}
	return inTurn(slices.DeleteFunc(slices.Clone(class), func(t *target) bool { return load(t) > least }))
}
