package watch

import (
	"context"
	"math/rand/v2"
	"testing"

	"google.golang.org/grpc"
	"google.golang.org/protobuf/proto"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	"go.etcd.io/etcd/api/v3/mvccpb"
)

// eventsAt gives one event for each revision.
func eventsAt(revs ...int64) []*mvccpb.Event {
	var out []*mvccpb.Event
	for i, rev := range revs {
		out = append(out, &mvccpb.Event{Kv: &mvccpb.KeyValue{Key: []byte{byte(i)}, ModRevision: rev}})
	}
	return out
}

func TestABatchLeavesOutWhatIsKnown(t *testing.T) {
	b := newBatch(nil, eventsAt(3, 3, 5, 6))
	for rev, want := range map[int64]int{0: 4, 2: 4, 3: 2, 4: 2, 5: 1, 6: 0, 9: 0} {
		if got := b.after(rev); want == 0 && got != nil || want > 0 && len(got.events) != want {
			t.Fatalf("after %d: %v", rev, got)
		}
	}
	if b.after(2) != b {
		t.Fatal("a whole batch was copied")
	}
}

func TestEventsLoseTheirPrevKvOnlyForThoseWhoDidNotAsk(t *testing.T) {
	evs := eventsAt(2, 3)
	evs[1].PrevKv = evs[0].Kv
	b := newBatch(nil, evs)
	if got := b.withoutPrev(); got[0] != evs[0] || got[1].PrevKv != nil || got[1].Kv != evs[1].Kv || evs[1].PrevKv == nil {
		t.Fatal(got)
	}
}

// sent collects what is sent on a stream.
type sent struct {
	grpc.ServerStream
	responses []*pb.WatchResponse
}

func (s *sent) Send(r *pb.WatchResponse) error { s.responses = append(s.responses, r); return nil }
func (s *sent) Recv() (*pb.WatchRequest, error) {
	return nil, context.Canceled
}

// Whatever an etcd sends, however it is cut: the assembler gives every event once, in
// order, and no revision in two batches.
func FuzzFragmentsAreAssembledToWholeRevisions(f *testing.F) {
	f.Add(uint64(1), uint16(40), uint16(300))
	f.Add(uint64(2), uint16(1), uint16(1))
	f.Fuzz(func(t *testing.T, seed uint64, n, limit uint16) {
		rnd := rand.New(rand.NewPCG(seed, 0))
		var all []*mvccpb.Event
		var a assembler
		var got []*mvccpb.Event
		rev := int64(1)
		for len(all) < int(n%500) {
			rev++
			var response []*mvccpb.Event
			for range 1 + rnd.IntN(20) {
				if rnd.IntN(3) == 0 {
					rev++
				}
				response = append(response, &mvccpb.Event{Kv: &mvccpb.KeyValue{Value: make([]byte, rnd.IntN(100)), ModRevision: rev}})
			}
			all = append(all, response...)
			s := &sent{}
			it := item{response: &pb.WatchResponse{WatchId: 7, Header: &pb.ResponseHeader{Revision: rev}, Events: response}, fragment: true}
			if err := send(s, it, int64(limit)); err != nil {
				t.Fatal(err)
			}
			for i, r := range s.responses {
				if last := i == len(s.responses)-1; r.Fragment == last || r.WatchId != 7 || len(r.Events) == 0 {
					t.Fatalf("fragment %d of %d: %v", i, len(s.responses), r)
				}
				if len(r.Events) > 1 && proto.Size(r) > int(limit) {
					t.Fatalf("%d bytes, limit %d", proto.Size(r), limit)
				}
				b := a.add(r)
				if b == nil {
					continue
				}
				if len(got) > 0 && b.events[0].Kv.ModRevision <= got[len(got)-1].Kv.ModRevision {
					t.Fatalf("revision %d in two batches", b.events[0].Kv.ModRevision)
				}
				got = append(got, b.events...)
			}
			if len(a.held) > 0 {
				t.Fatalf("%d events held back though the response was whole", len(a.held))
			}
		}
		if len(got) != len(all) {
			t.Fatalf("%d events, want %d", len(got), len(all))
		}
		for i := range all {
			if got[i] != all[i] {
				t.Fatalf("event %d differs", i)
			}
		}
	})
}
