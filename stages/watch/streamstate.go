package watch

import "time"

// streamState is what one upstream stream of a trunk knows; a new stream starts
// afresh. Guarded by the trunk's mutex.
type streamState struct {
	creates []create         // sent, not yet answered, in order
	byID    map[int64]*group // upstream watchers by the shard's watch id
	asked   []*ask           // progress requests whose askers may still wait, oldest first
	asks    int              // progress requests sent so far
	pending []pendingAsk     // those whose answers may still come, oldest first
}

// create is a create request and how many progress requests were sent before it.
type create struct {
	command
	asks int
}

// pendingAsk is a progress request that has no answer. handled is when the shard was
// found to have read it, zero if that is not known: an answer, if there is one, was
// put on its way then.
type pendingAsk struct{ handled time.Time }

// forgottenAfter is how long the answer to a progress request may be on its way. The
// shard's answers to creates and to progress requests go by two queues.
const forgottenAfter = 30 * time.Second

// sent notes a progress request. Its askers give up after a while; those are dropped.
func (s *streamState) sent(a *ask) {
	a.sent = time.Now()
	s.expire()
	s.asks++
	s.asked = append(s.asked, a)
	s.pending = append(s.pending, pendingAsk{})
}

// handled notes that the shard has read the first n progress requests, and counts
// those of them whose answers may still be on their way.
func (s *streamState) handled(n int) int {
	s.forget()
	now := time.Now()
	before := max(0, n-(s.asks-len(s.pending)))
	for i := range s.pending[:before] {
		if s.pending[i].handled.IsZero() {
			s.pending[i].handled = now
		}
	}
	return before
}

// forget drops the requests that cannot be answered any more.
func (s *streamState) forget() {
	for len(s.pending) > 0 && !s.pending[0].handled.IsZero() && time.Since(s.pending[0].handled) > forgottenAfter {
		s.pending = s.pending[1:]
	}
}

// answered notes an answer. The shard answers in order but not always, so it may be to
// any request sent before; of the askers it goes to the oldest that still waits.
func (s *streamState) answered() *ask {
	if len(s.pending) > 0 {
		s.pending = s.pending[1:]
	}
	s.expire()
	if len(s.asked) == 0 {
		return nil
	}
	a := s.asked[0]
	s.asked = s.asked[1:]
	return a
}

// expire drops the askers that have given up.
func (s *streamState) expire() {
	for len(s.asked) > 0 && time.Since(s.asked[0].sent) > askPatience {
		s.asked[0].answer(0)
		s.asked = s.asked[1:]
	}
}
