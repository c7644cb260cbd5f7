package history

import (
	"math"
	"slices"
	"time"

	"github.com/anishathalye/porcupine"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"

	"go.etcd.io/etcd/api/v3/mvccpb"
)

// snapshot is the keys of one etcd at a revision, and those before.
type snapshot struct {
	rev    int64
	keys   map[string]*mvccpb.KeyValue
	sorted []string
	before *snapshot
	over   bool // everything that anybody saw has happened
}

func (s *snapshot) revision() int64                 { return s.rev }
func (s *snapshot) get(key string) *mvccpb.KeyValue { return s.keys[key] }
func (s *snapshot) names() []string                 { return s.sorted }

func (s *snapshot) past(rev int64) view {
	for s.rev > rev && s.before != nil {
		s = s.before
	}
	return s
}

// next is the snapshot after some events.
func (s *snapshot) next(events []*mvccpb.Event) *snapshot {
	n := &snapshot{rev: s.rev + 1, keys: map[string]*mvccpb.KeyValue{}, before: s}
	for key, kv := range s.keys {
		n.keys[key] = kv
	}
	for _, ev := range events {
		if n.keys[string(ev.Kv.Key)] = ev.Kv; ev.Type == mvccpb.Event_DELETE {
			delete(n.keys, string(ev.Kv.Key))
		}
	}
	for key := range n.keys {
		n.sorted = append(n.sorted, key)
	}
	slices.Sort(n.sorted)
	return n
}

// same compares two snapshots with all that led to them.
func (s *snapshot) same(o *snapshot) bool {
	for s != o {
		if s == nil || o == nil || s.rev != o.rev || s.over != o.over || len(s.keys) != len(o.keys) {
			return false
		}
		for key, kv := range s.keys {
			if other := o.keys[key]; other != kv && !proto.Equal(other, kv) {
				return false
			}
		}
		s, o = s.before, o.before
	}
	return true
}

// end is the input that comes behind everything that had an answer.
type end struct{}

// Model is one etcd with one revision: all keys are one object, every reply's header is
// part of it. Inputs are *Op, and one end; there are no outputs but those the Op has.
func Model() porcupine.Model {
	return porcupine.Model{
		Init: func() any { return &snapshot{rev: 1} },
		Step: func(state, input, _ any) (bool, any) {
			s := state.(*snapshot)
			if o, ok := input.(*Op); ok {
				return step(s, o)
			}
			return true, &snapshot{rev: s.rev, keys: s.keys, sorted: s.sorted, before: s.before, over: true}
		},
		Equal: func(a, b any) bool { return a.(*snapshot).same(b.(*snapshot)) },
		Hash:  func(s any) uint64 { return uint64(s.(*snapshot).rev) },
	}
}

// step lets one op happen. One whose outcome is unknown changes something, or it is kept
// for the end, where it does nothing: so it stands at one place only and not at all of
// those that make no difference.
func step(s *snapshot, o *Op) (bool, *snapshot) {
	if s.over {
		return o.outcome() == unknown, s
	}
	reply, events, err := evaluate(s, o.Request)
	after := s
	if len(events) > 0 {
		after = s.next(events)
	}
	switch o.outcome() {
	case unknown:
		return len(events) > 0, after
	case refused:
		want, got := status.Convert(o.Err), status.Convert(err)
		return got.Code() == want.Code() && got.Message() == want.Message(), s
	}
	return err == nil && o.revision() == after.rev && proto.Equal(reply, bare(o.Reply)), after
}

// Linearizable searches for an order in which one etcd could have given these replies.
// Serializable reads are left out, and reads whose outcome is unknown; a write whose
// outcome is unknown may happen at any time after its call, or not at all. Given a
// timeline, those are left out that can't have made any of its events: each that may stand
// anywhere makes the search many times as long.
func Linearizable(ops []*Op, t *Timeline, bound time.Duration) porcupine.CheckResult {
	needed := needed(ops, t)
	last := int64(0)
	var all []porcupine.Operation
	for _, o := range ops {
		if o.stale() || o.outcome() == unknown && !needed[o] {
			continue
		}
		op := porcupine.Operation{ClientId: o.Client, Input: o, Call: int64(o.Call), Return: int64(o.Return)}
		if o.outcome() == unknown {
			op.Return = math.MaxInt64
		} else {
			last = max(last, op.Return)
		}
		all = append(all, op)
	}
	all = append(all, porcupine.Operation{Input: end{}, Call: last + 1, Return: last + 2})
	return porcupine.CheckOperationsTimeout(Model(), all, bound)
}
