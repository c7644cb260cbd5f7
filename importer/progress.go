package importer

import (
	"sync"
	"time"
)

// Progress tells somebody who watches how far an import is. The zero value is ready;
// its methods may be called from any goroutine, also on nil.
type Progress struct {
	mu sync.Mutex
	s  Step
}

// Step is where an import is at one moment.
type Step struct {
	Phase string // what is being done; "" before anything is
	Began time.Time
	Keys  int64 // how many keys of the phase are done
	Total int64 // of how many
	Bytes int64 // of keys and values, for those that are done
}

// Now gives the present step.
func (p *Progress) Now() Step {
	if p == nil {
		return Step{}
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.s
}

func (p *Progress) begin(phase string, done, total int64) {
	if p == nil {
		return
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	p.s = Step{Phase: phase, Began: time.Now(), Keys: done, Total: max(done, total)}
}

func (p *Progress) add(keys, bytes int64) {
	if p == nil {
		return
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	p.s.Keys += keys
	p.s.Bytes += bytes
}
