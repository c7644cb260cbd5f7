package history_test

import (
	"slices"
	"testing"
	"time"

	"github.com/anishathalye/porcupine"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	"go.etcd.io/etcd/api/v3/mvccpb"
	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"

	"github.com/sharder/sharder/integration/history"
)

// story is a history that is written by hand. Every op takes 10, the next begins 10
// later, unless it is moved.
type story struct {
	ops    []*history.Op
	events []*mvccpb.Event
}

func (s *story) add(req, reply proto.Message, err error) *history.Op {
	begin := time.Duration(len(s.ops)) * 20
	o := &history.Op{Call: begin, Return: begin + 10, Request: req, Reply: reply, Err: err}
	s.ops = append(s.ops, o)
	return o
}

func at(rev int64) *pb.ResponseHeader { return &pb.ResponseHeader{Revision: rev} }

func kv(key, value string, create, mod, version int64) *mvccpb.KeyValue {
	return &mvccpb.KeyValue{Key: []byte(key), Value: []byte(value), CreateRevision: create, ModRevision: mod, Version: version}
}

func put(kv *mvccpb.KeyValue) *mvccpb.Event { return &mvccpb.Event{Type: mvccpb.Event_PUT, Kv: kv} }

func gone(key string, rev int64) *mvccpb.Event {
	return &mvccpb.Event{Type: mvccpb.Event_DELETE, Kv: &mvccpb.KeyValue{Key: []byte(key), ModRevision: rev}}
}

func putReq(key, value string) *pb.PutRequest {
	return &pb.PutRequest{Key: []byte(key), Value: []byte(value)}
}

func all() *pb.RangeRequest { return &pb.RangeRequest{Key: []byte{0}, RangeEnd: []byte{0}} }

func found(rev int64, kvs ...*mvccpb.KeyValue) *pb.RangeResponse {
	return &pb.RangeResponse{Header: at(rev), Kvs: kvs, Count: int64(len(kvs))}
}

// swap puts a=swapped if the key has a mod revision.
func swap(mod int64) *pb.TxnRequest {
	return &pb.TxnRequest{
		Compare: []*pb.Compare{{Key: []byte("a"), Target: pb.Compare_MOD, TargetUnion: &pb.Compare_ModRevision{ModRevision: mod}}},
		Success: []*pb.RequestOp{{Request: &pb.RequestOp_RequestPut{RequestPut: putReq("a", "swapped")}}},
	}
}

// a1 and j1 are what the first two puts of every story left.
var a1, j1 = kv("a", "1", 2, 2, 1), kv("j", "1", 3, 3, 1)

// told is: put a, put j, read both, delete a, read again. One etcd may have done it.
func told() *story {
	s := &story{events: []*mvccpb.Event{put(a1), put(j1), gone("a", 4)}}
	s.add(putReq("a", "1"), &pb.PutResponse{Header: at(2)}, nil)
	s.add(putReq("j", "1"), &pb.PutResponse{Header: at(3)}, nil)
	s.add(all(), found(3, a1, j1), nil)
	s.add(&pb.DeleteRangeRequest{Key: []byte("a"), PrevKv: true}, &pb.DeleteRangeResponse{Header: at(4), Deleted: 1, PrevKvs: []*mvccpb.KeyValue{a1}}, nil)
	s.add(all(), found(4, j1), nil)
	return s
}

// judge gives the rules that a story breaks.
func (s *story) judge() (rules []string) {
	timeline, wrong := history.NewTimeline(s.events)
	wrong = append(wrong, history.Check(s.ops, timeline)...)
	for _, v := range wrong {
		rules = append(rules, v.Rule)
	}
	return rules
}

var timeout = status.Error(codes.DeadlineExceeded, "context deadline exceeded")

// right are stories that one etcd may have been part of.
var right = map[string]func(*story){
	"as it is": func(*story) {},
	"a write nobody heard of happened": func(s *story) {
		s.add(putReq("b", "?"), nil, timeout)
		s.events = append(s.events, put(kv("b", "?", 5, 5, 1)))
	},
	"a write nobody heard of did not happen": func(s *story) { s.add(putReq("b", "?"), nil, timeout) },
	"two deletes nobody heard of, one of which fits two places": func(s *story) {
		s.ops[0].Call, s.ops[1].Call = 0, 0
		s.add(&pb.DeleteRangeRequest{Key: []byte("a"), RangeEnd: []byte("b")}, nil, timeout)
		s.add(&pb.DeleteRangeRequest{Key: []byte("a")}, nil, timeout)
		s.add(putReq("a", "2"), nil, timeout)
		s.add(&pb.DeleteRangeRequest{Key: []byte("j")}, nil, timeout)
		s.events = append(s.events, gone("j", 5), put(kv("a", "2", 6, 6, 1)), gone("a", 7))
	},
	"a stale serializable read": func(s *story) {
		req := all()
		req.Serializable = true
		s.add(req, found(3, a1, j1), nil)
	},
	"a read of the past": func(s *story) {
		req := all()
		req.Revision = 2
		res := found(4, a1)
		s.add(req, res, nil)
	},
	"an op that overlaps the delete sees the key": func(s *story) {
		s.ops[4].Call, s.ops[4].Reply = 65, found(3, a1, j1)
	},
	"a compare that fails": func(s *story) { s.add(swap(2), &pb.TxnResponse{Header: at(4)}, nil) },
	"a key that is not there": func(s *story) {
		s.add(&pb.PutRequest{Key: []byte("a"), IgnoreValue: true}, nil, rpctypes.ErrGRPCKeyNotFound)
	},
	"compacted, then refused": func(s *story) {
		s.add(&pb.CompactionRequest{Revision: 3}, &pb.CompactionResponse{Header: at(4)}, nil)
		req := all()
		req.Revision = 2
		s.add(req, nil, rpctypes.ErrGRPCCompacted)
	},
}

// wrong are stories that no etcd tells, by the rule they break.
var wrong = map[string]map[string]func(*story){
	history.Gap: {
		"a revision without events": func(s *story) { s.events[2].Kv = &mvccpb.KeyValue{Key: []byte("a"), ModRevision: 5} },
		"events out of order":       func(s *story) { s.events[0], s.events[1] = s.events[1], s.events[0] },
	},
	history.Lost: {
		"an acknowledged write is not there": func(s *story) {
			s.add(putReq("b", "1"), &pb.PutResponse{Header: at(5)}, nil)
		},
		"an acknowledged write is another": func(s *story) { s.events[1] = put(kv("j", "2", 3, 3, 1)) },
		"a compare succeeds that can't": func(s *story) {
			s.add(swap(2), &pb.TxnResponse{Header: at(4), Succeeded: true, Responses: []*pb.ResponseOp{{Response: &pb.ResponseOp_ResponsePut{ResponsePut: &pb.PutResponse{}}}}}, nil)
		},
	},
	history.Invented: {
		"nobody wrote it": func(s *story) { s.events = append(s.events, put(kv("b", "1", 5, 5, 1))) },
		"it happened twice": func(s *story) {
			s.add(putReq("b", "?"), nil, timeout)
			s.events = append(s.events, put(kv("b", "?", 5, 5, 1)), put(kv("b", "?", 5, 6, 2)))
		},
		"it happened before it was asked for": func(s *story) {
			s.events = []*mvccpb.Event{put(a1), put(j1), put(kv("b", "?", 4, 4, 1)), gone("a", 5)}
			s.ops[3].Reply.(*pb.DeleteRangeResponse).Header = at(5)
			s.ops[4].Reply = found(5, kv("b", "?", 4, 4, 1), j1)
			s.add(putReq("b", "?"), nil, timeout)
		},
	},
	history.State: {
		"a read misses a key":        func(s *story) { s.ops[2].Reply = found(3, a1) },
		"a read of two moments":      func(s *story) { s.ops[4].Reply = found(4, a1, j1) },
		"a wrong count":              func(s *story) { s.ops[2].Reply.(*pb.RangeResponse).Count = 3 },
		"a wrong version":            func(s *story) { s.ops[2].Reply = found(3, kv("a", "1", 2, 2, 2), j1) },
		"a wrong prev_kv":            func(s *story) { s.ops[3].Reply.(*pb.DeleteRangeResponse).PrevKvs[0] = j1 },
		"a compare fails that holds": func(s *story) { s.ops[2].Request, s.ops[2].Reply = swap(2), &pb.TxnResponse{Header: at(3)} },
		"a key that is there is not": func(s *story) {
			s.add(&pb.PutRequest{Key: []byte("j"), IgnoreValue: true}, nil, rpctypes.ErrGRPCKeyNotFound)
		},
		"compacted by nobody":          func(s *story) { s.add(&pb.RangeRequest{Key: []byte("a"), Revision: 2}, nil, rpctypes.ErrGRPCCompacted) },
		"a revision that is two's":     func(s *story) { s.add(s.ops[1].Request, s.ops[1].Reply, nil).Call = 20 },
		"the past is not as it was":    func(s *story) { s.add(&pb.RangeRequest{Key: []byte("a"), Revision: 2}, found(4), nil) },
		"a serializable read of mixes": func(s *story) { s.add(&pb.RangeRequest{Key: []byte("a"), Serializable: true}, found(4, a1), nil) },
	},
	history.RealTime: {
		"a read older than one before":  func(s *story) { s.add(all(), found(3, a1, j1), nil) },
		"a write older than one before": func(s *story) { s.ops[1].Call, s.ops[1].Return = 100, 110 },
		"a read saw a write that had not begun": func(s *story) {
			s.ops[3].Call, s.ops[3].Return = 100, 110
		},
		"an error, then a read that contradicts it": func(s *story) {
			req := &pb.PutRequest{Key: []byte("a"), IgnoreValue: true}
			s.ops[4].Reply = found(3, a1, j1) // while the delete is under way
			s.ops[3].Return = 200
			s.add(req, nil, rpctypes.ErrGRPCKeyNotFound)
			o := s.ops[len(s.ops)-1]
			o.Call, o.Return = 65, 70 // found the key gone, and had returned before the read began
		},
		"the past is there after its compaction": func(s *story) {
			s.add(&pb.CompactionRequest{Revision: 3}, &pb.CompactionResponse{Header: at(4)}, nil)
			s.add(&pb.RangeRequest{Key: []byte("a"), Revision: 2}, found(4, a1), nil)
		},
	},
	history.Strange: {
		"an error of no use": func(s *story) { s.add(all(), nil, status.Error(codes.Internal, "oh")) },
	},
}

func TestARightHistoryPasses(t *testing.T) {
	for name, change := range right {
		s := told()
		if change(s); len(s.judge()) > 0 {
			t.Errorf("%s: judged as %v", name, s.judge())
		}
	}
}

func TestEveryBrokenRuleIsSeen(t *testing.T) {
	for rule, stories := range wrong {
		for name, change := range stories {
			s := told()
			change(s)
			if rules := s.judge(); !slices.Contains(rules, rule) {
				t.Errorf("%s: %s: judged as %v", rule, name, rules)
			}
		}
	}
}

// Porcupine knows neither events nor compactions: it judges replies alone.
func TestPorcupineAgrees(t *testing.T) {
	search := func(name string, change func(*story), want porcupine.CheckResult) {
		s := told()
		change(s)
		for _, o := range s.ops {
			if _, ok := o.Request.(*pb.CompactionRequest); ok {
				return
			}
		}
		if got := history.Linearizable(s.ops, nil, time.Minute); got != want {
			t.Errorf("%s: %v", name, got)
		}
	}
	for name, change := range right {
		search(name, change, porcupine.Ok)
	}
	for _, rule := range []string{history.State, history.RealTime} {
		for name, change := range wrong[rule] {
			if name != "a serializable read of mixes" { // it leaves them out
				search(name, change, porcupine.Illegal)
			}
		}
	}
}
