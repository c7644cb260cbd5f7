package sim

import (
	"context"
	"sync"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
)

// process is whoever sends messages: a sharder. Paused, what it sends and what is sent to
// it is held; dead, it is never heard of again, though what it sent still arrives.
type process struct {
	ctx  context.Context
	kill context.CancelFunc

	mu     sync.Mutex
	paused time.Time // until when
	dead   bool
}

func (p *process) pause(d time.Duration) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.paused = time.Now().Add(d)
}

func (p *process) die() {
	p.mu.Lock()
	p.dead = true
	p.mu.Unlock()
	p.kill()
}

// state gives how long the process is still paused, and whether it is dead.
func (p *process) state() (held time.Duration, dead bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	return time.Until(p.paused), p.dead
}

// through runs f when a message that takes d has gone out of or into the process.
func (p *process) through(d time.Duration, f func()) {
	time.AfterFunc(d, func() {
		switch held, dead := p.state(); {
		case dead:
		case held > 0:
			p.through(held+d, f) // not all at the same instant
		default:
			f()
		}
	})
}

// weather is how bad a network is.
type weather struct {
	lost float64 // chance that a message gets lost and the call breaks
	late float64 // chance that a request arrives after its call has broken
	slow float64 // chance that a message takes long
}

// line is the way from a process to a cluster.
type line struct {
	from *process
	dice *dice
	weather
	// away tells that the cluster doesn't answer at this moment.
	away func() bool
}

func (l *line) delay() time.Duration {
	d := l.dice.between(100*time.Microsecond, 2*time.Millisecond)
	if l.dice.chance(l.slow) {
		d += l.dice.between(5*time.Millisecond, 300*time.Millisecond)
	}
	return d
}

// errBroken is what gRPC says when a connection breaks during a call.
var errBroken = status.Error(codes.Unavailable, "transport is closing")

type answer[T any] struct {
	value T
	err   error
}

// call has work done at the far end and gives its result. After an error that is not
// work's own, work may have been done, may not, or may still be.
func call[T any](ctx context.Context, l *line, work func() (T, error)) (T, error) {
	var none T
	if ctx.Err() != nil {
		return none, status.FromContextError(ctx.Err()).Err()
	}
	if _, dead := l.from.state(); dead {
		return none, errBroken
	}
	answered := make(chan answer[T], 1)
	broken := make(chan struct{})
	f := l.fate()
	if f.breaks > 0 {
		l.from.through(f.breaks, func() { close(broken) })
	}
	if f.arrives {
		l.from.sent(f.there, func() {
			a := answer[T]{err: errBroken}
			if !l.away() {
				a.value, a.err = work()
			}
			if f.breaks == 0 {
				l.from.through(f.back, func() { answered <- a })
			}
		})
	}
	select {
	case a := <-answered:
		return a.value, a.err
	case <-broken:
		return none, errBroken
	case <-ctx.Done():
		return none, status.FromContextError(ctx.Err()).Err()
	}
}

// fate is what becomes of one call.
type fate struct {
	there, back time.Duration // how long its messages take
	arrives     bool          // whether the request does
	breaks      time.Duration // when the call breaks, without an answer; 0: it doesn't
}

func (l *line) fate() fate {
	f := fate{there: l.delay(), back: l.delay(), arrives: true}
	switch x := l.dice.float(); {
	case x < l.lost/2:
		f.arrives, f.breaks = false, l.delay()
	case x < l.lost:
		f.breaks = f.there + l.delay()
	case x < l.lost+l.late:
		f.breaks = l.delay()
		f.there += l.dice.between(20*time.Millisecond, 2*time.Second)
	}
	return f
}

// sent runs f at the far end when a message that takes d has arrived. A process that is
// paused sends it later; one that dies now has sent it already.
func (p *process) sent(d time.Duration, f func()) {
	held, _ := p.state()
	time.AfterFunc(max(0, held)+d, f)
}
