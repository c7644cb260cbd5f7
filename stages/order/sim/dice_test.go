package sim

import (
	"hash/fnv"
	"math/rand/v2"
	"sync"
	"time"
)

// dice are the chances of one actor of a run. Each actor has dice of its own, made of the
// run's seed and its name, so that what one does leaves the luck of the others alone.
type dice struct {
	mu sync.Mutex
	r  *rand.Rand
}

func newDice(seed uint64, actor string) *dice {
	h := fnv.New64a()
	h.Write([]byte(actor))
	return &dice{r: rand.New(rand.NewPCG(seed, h.Sum64()))}
}

// float is a number in [0, 1).
func (d *dice) float() float64 {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.r.Float64()
}

func (d *dice) chance(p float64) bool { return d.float() < p }

// n is one of 0 to n-1.
func (d *dice) n(n int) int { return int(d.float() * float64(n)) }

func (d *dice) between(a, b time.Duration) time.Duration {
	return a + time.Duration(d.float()*float64(b-a))
}

// pick is one of xs.
func pick[T any](d *dice, xs ...T) T { return xs[d.n(len(xs))] }
