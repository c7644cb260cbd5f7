package history

import (
	"fmt"
	"math"
	"sort"
	"time"

	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
)

// Check holds what clients did against the events there were, and lists what one
// linearizable etcd can't have done. Every write must be among the ops, those by others
// as ones whose outcome is unknown.
//
// An order of all ops exists, and is found without a search: writes by their revision,
// each read behind the write whose revision it carries, reads of one revision by time.
// It is a linearization if replies fit and no op stands before one that had returned
// when it was called.
func Check(ops []*Op, t *Timeline) []Violation {
	c := newChecker(ops, t)
	c.claim()
	c.walk()
	c.explain()
	return c.wrong
}

// checker is one Check.
type checker struct {
	t       *Timeline
	ops     []*Op
	place   []int64       // by op, the revision at which it stands; 0 unknown
	bound   []int64       // by op, the greatest place of what had returned before its call
	claimed map[int64]*Op // the acknowledged write of each revision
	compact []compaction
	wrong   []Violation
}

// compaction is one that was asked for.
type compaction struct {
	rev       int64
	call, end time.Duration // end is for ever if it was not acknowledged
}

func newChecker(ops []*Op, t *Timeline) *checker {
	return &checker{t: t, ops: ops, place: make([]int64, len(ops)), claimed: map[int64]*Op{}}
}

func (c *checker) fail(rule, format string, args ...any) {
	c.wrong = append(c.wrong, Violation{rule, fmt.Sprintf(format, args...)})
}

// Describe names an op in a message.
func (o *Op) Describe() string {
	what := fmt.Sprintf("client %d through %s, %v to %v: %T{%v}", o.Client, o.Through, o.Call, o.Return, o.Request, o.Request)
	if o.Err != nil {
		return what + fmt.Sprintf(" = error %v", o.Err)
	}
	return what + fmt.Sprintf(" = {%v}", o.Reply)
}

// claim compares each reply with the state at its revision, and gives each revision
// that an acknowledged write made to it.
func (c *checker) claim() {
	for i, o := range c.ops {
		switch o.outcome() {
		case strange:
			c.fail(Strange, "%s", o.Describe())
		case answered:
			c.place[i] = o.revision()
			if r, ok := o.Request.(*pb.CompactionRequest); ok {
				c.compact = append(c.compact, compaction{r.Revision, o.Call, o.Return})
				continue
			}
			c.reply(o)
		case unknown:
			if r, ok := o.Request.(*pb.CompactionRequest); ok {
				c.compact = append(c.compact, compaction{r.Revision, o.Call, math.MaxInt64})
			}
		}
	}
}

// reply compares one reply. A write stands at the revision it made, on the state
// before; whatever wrote nothing on the state of its header.
func (c *checker) reply(o *Op) {
	rev := o.revision()
	if rev > c.t.Last() || rev < 1 {
		c.fail(Lost, "revision %d is not in a history up to %d: %s", rev, c.t.Last(), o.Describe())
		return
	}
	if o.writes() && wrote(o.Reply) {
		c.write(o, rev)
		return
	}
	reply, events, err := evaluate(c.t.at(rev), o.Request)
	if err != nil || len(events) > 0 || !proto.Equal(reply, bare(o.Reply)) {
		c.fail(State, "at revision %d the reply would be {%v}, %v, with events %v: %s", rev, reply, err, events, o.Describe())
	}
}

// write compares the reply of a write that says that it wrote, and gives it its
// revision if that has the events that the write makes.
func (c *checker) write(o *Op, rev int64) {
	reply, events, err := evaluate(c.t.at(rev-1), o.Request)
	switch other := c.claimed[rev]; {
	case err != nil || !sameEvents(events, c.t.Events(rev)):
		c.fail(Lost, "behind revision %d it makes %v, %v, and the events there are %v: %s", rev-1, events, err, c.t.Events(rev), o.Describe())
		return
	case other != nil:
		c.fail(State, "two writes have revision %d: %s; %s", rev, other.Describe(), o.Describe())
	case !proto.Equal(reply, bare(o.Reply)):
		c.fail(State, "behind revision %d the reply would be {%v}: %s", rev-1, reply, o.Describe())
	}
	c.claimed[rev] = o
}

// walk goes through the ops by time and wants none to stand before one that had
// returned when it was called.
func (c *checker) walk() {
	byCall, byReturn := c.order(func(o *Op) time.Duration { return o.Call }), c.order(func(o *Op) time.Duration { return o.Return })
	c.bound = make([]int64, len(c.ops))
	bound, holder, next := int64(1), -1, 0
	for _, i := range byCall {
		o := c.ops[i]
		for ; next < len(byReturn) && c.ops[byReturn[next]].Return < o.Call; next++ {
			if j := byReturn[next]; c.place[j] > bound {
				bound, holder = c.place[j], j
			}
		}
		c.bound[i] = bound
		if o.outcome() == refused {
			c.place[i] = c.refusal(o, bound)
		}
		wrote := c.claimed[c.place[i]] == o && o.outcome() == answered
		if c.place[i] == 0 || o.stale() || c.place[i] > bound || c.place[i] == bound && !wrote {
			c.compacted(o)
			continue
		}
		c.fail(RealTime, "revision %d was known before: %s; then %s", bound, c.ops[holder].Describe(), o.Describe())
	}
}

// order is the numbers of the ops, sorted.
func (c *checker) order(by func(*Op) time.Duration) []int {
	order := make([]int, len(c.ops))
	for i := range order {
		order[i] = i
	}
	sort.SliceStable(order, func(a, b int) bool { return by(c.ops[order[a]]) < by(c.ops[order[b]]) })
	return order
}

// refusal finds the first revision from a bound on at which a request is refused as it
// was. That is where it stands: any later one would only leave less room to others.
func (c *checker) refusal(o *Op, bound int64) int64 {
	want := status.Convert(o.Err)
	if c.compactedError(o) {
		return 0
	}
	for rev := bound; rev <= c.t.Last(); rev++ {
		_, _, err := evaluate(c.t.at(rev), o.Request)
		if got := status.Convert(err); got.Code() == want.Code() && got.Message() == want.Message() {
			return rev
		}
	}
	c.fail(State, "there is no revision from %d on at which this is the answer: %s", bound, o.Describe())
	return 0
}
