package history

import (
	"fmt"
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
		if s == nil || o == nil || s.rev != o.rev || len(s.keys) != len(o.keys) {
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

// Model is one etcd with one revision: all keys are one object, every reply's header is
// part of it. Inputs are *Op; there are no outputs but those the Op has.
func Model() porcupine.Model {
	return porcupine.Model{
		Init: func() any { return &snapshot{rev: 1} },
		Step: func(state, input, _ any) (bool, any) {
			return step(state.(*snapshot), input.(*Op))
		},
		Equal:             func(a, b any) bool { return a.(*snapshot).same(b.(*snapshot)) },
		Hash:              func(s any) uint64 { return uint64(s.(*snapshot).rev) },
		DescribeOperation: func(input, _ any) string { return input.(*Op).describe() },
		DescribeState:     func(s any) string { return fmt.Sprintf("revision %d", s.(*snapshot).rev) },
	}
}

// step lets one op happen.
func step(s *snapshot, o *Op) (bool, *snapshot) {
	reply, events, err := evaluate(s, o.Request)
	after := s
	if len(events) > 0 {
		after = s.next(events)
	}
	switch o.outcome() {
	case unknown:
		return true, after
	case refused:
		want, got := status.Convert(o.Err), status.Convert(err)
		return got.Code() == want.Code() && got.Message() == want.Message(), s
	}
	return err == nil && o.revision() == after.rev && proto.Equal(reply, bare(o.Reply)), after
}

// Linearizable searches for an order in which one etcd could have given these replies.
// Serializable reads are left out, and reads whose outcome is unknown; a write whose
// outcome is unknown may happen at any time after its call, at the end too, where nobody
// sees it.
func Linearizable(ops []*Op, bound time.Duration) porcupine.CheckResult {
	var all []porcupine.Operation
	for _, o := range ops {
		if o.stale() || o.outcome() == unknown && !o.writes() {
			continue
		}
		op := porcupine.Operation{ClientId: o.Client, Input: o, Call: int64(o.Call), Return: int64(o.Return)}
		if o.outcome() == unknown {
			op.Return = math.MaxInt64
		}
		all = append(all, op)
	}
	return porcupine.CheckOperationsTimeout(Model(), all, bound)
}
