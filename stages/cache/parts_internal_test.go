package cache

import (
	"bytes"
	"fmt"
	"math/rand/v2"
	"slices"
	"testing"
	"time"

	"google.golang.org/protobuf/proto"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	"go.etcd.io/etcd/api/v3/mvccpb"
)

// The index finds what a plain look at all cells finds.
func TestTheIndexFindsWhatOverlaps(t *testing.T) {
	rnd := rand.New(rand.NewPCG(1, 2))
	span := func() (key, end []byte) {
		key = []byte(fmt.Sprint(rnd.IntN(200)))
		switch rnd.IntN(5) {
		case 0:
			return key, []byte{0}
		case 1, 2:
			if end = []byte(fmt.Sprint(rnd.IntN(200))); bytes.Compare(key, end) < 0 {
				return key, end
			}
		case 3:
			return key, append(slices.Clone(key), 0) // one key, said otherwise
		}
		return key, nil
	}
	has := func(key, end, k []byte) bool {
		switch {
		case len(end) == 0:
			return bytes.Equal(key, k)
		case fromKey(end):
			return bytes.Compare(key, k) <= 0
		}
		return bytes.Compare(key, k) <= 0 && bytes.Compare(k, end) < 0
	}
	overlap := func(x *cell, key, end []byte) bool { // whichever begins later begins in the other
		return has(x.query.key, x.query.end, key) || has(key, end, x.query.key)
	}
	i := newIndex()
	cells := map[*cell]bool{}
	for step := range 20_000 {
		if key, end := span(); rnd.IntN(3) > 0 || len(cells) > 300 {
			for x := range cells {
				if rnd.IntN(2) == 0 || len(cells) > 300 {
					i.remove(x)
					delete(cells, x)
				}
				break
			}
		} else {
			x := &cell{query: query{key: key, end: end}}
			i.add(x)
			cells[x] = true
		}
		key, end := span()
		found := map[*cell]bool{}
		i.visit(key, end, func(x *cell) {
			if found[x] || !cells[x] {
				t.Fatalf("step %d: %q found twice, or after it was removed", step, x.query.key)
			}
			found[x] = true
		})
		for x := range cells {
			if found[x] != overlap(x, key, end) {
				t.Fatalf("step %d: [%q, %q) and [%q, %q): found %v", step, key, end, x.query.key, x.query.end, found[x])
			}
		}
	}
}

// A range that holds nothing overlaps with nothing.
func TestAnEmptyRangeFindsNothing(t *testing.T) {
	i := newIndex()
	i.add(&cell{query: query{key: []byte("a"), end: []byte{0}}})
	i.visit([]byte("c"), []byte("b"), func(x *cell) { t.Fatalf("%q", x.query.key) })
}

func TestMarks(t *testing.T) {
	const window = 10 * time.Second
	m, now := &marks{window: window}, int64(5*time.Second)
	const read = 1<<40 + 77
	if m.seen(read, now) {
		t.Fatal("nobody has read it")
	}
	m.note(read, now)
	if !m.seen(read, now+int64(window/2)) || m.seen(read, now+int64(2*window)) {
		t.Error("a mark is for a while")
	}
	if m.seen(read+1<<50, now) {
		t.Error("another read has the same place")
	}
	m.spurn(read, now)
	m.note(read, now)
	if m.seen(read, now) {
		t.Error("it is not worth it")
	}
	if after := now + int64(2*spurnFor); m.seen(read, after) {
		t.Error("nobody has read it since")
	} else if m.note(read, after); !m.seen(read, after) {
		t.Error("it was spurned long ago")
	}
	m.forget(read)
	if m.seen(read, now) {
		t.Error("it was forgotten")
	}
}

// anyResponse is an answer as etcd may give it.
func anyResponse(rnd *rand.Rand) *pb.RangeResponse {
	r := &pb.RangeResponse{
		Header: &pb.ResponseHeader{ClusterId: rnd.Uint64(), MemberId: rnd.Uint64(), Revision: rnd.Int64N(1000) + 1, RaftTerm: rnd.Uint64()},
		More:   rnd.IntN(2) == 0, Count: rnd.Int64N(4),
	}
	for range rnd.IntN(4) {
		r.Kvs = append(r.Kvs, &mvccpb.KeyValue{Key: []byte("k"), Value: make([]byte, rnd.IntN(300)), Lease: rnd.Int64N(3), ModRevision: rnd.Int64N(100), Version: rnd.Int64N(3)})
	}
	return r
}

// What is kept of an answer is the answer, with any revision.
func TestAnAnswerIsWhatWasSaid(t *testing.T) {
	rnd := rand.New(rand.NewPCG(3, 4))
	for range 2000 {
		said := anyResponse(rnd)
		wire, err := proto.Marshal(said)
		if err != nil {
			t.Fatal(err)
		}
		a := newAnswer(options{}, wire, 0)
		if a == nil {
			t.Fatalf("%v is not kept", said)
		}
		for _, rev := range []int64{said.Header.Revision, said.Header.Revision + 5, said.Header.Revision + 5} {
			want := proto.CloneOf(said)
			want.Header.Revision = rev
			if got, err := decoded.of(a, rev); err != nil || !proto.Equal(got, want) {
				t.Fatalf("got %v, %v\nwant %v", got, err, want)
			}
			f, _ := undecoded.of(a, rev)
			got := &pb.RangeResponse{}
			if err := proto.Unmarshal(f.Bytes(), got); err != nil || !proto.Equal(got, want) || f.Revision() != rev || f.Len() != proto.Size(want) {
				t.Fatalf("got %v, %v\nwant %v", got, err, want)
			}
		}
		for lease := range int64(3) {
			shows := slices.ContainsFunc(said.Kvs, func(kv *mvccpb.KeyValue) bool { return kv.Lease == lease && lease != 0 })
			if want := shows || said.More || said.Count != int64(len(said.Kvs)); a.mayHold(lease) != want {
				t.Fatalf("%v may hold lease %d: %v", said, lease, !want)
			}
		}
	}
}

// Nothing that comes over the wire makes the cache panic, or keep what it does not understand.
func FuzzNewAnswer(f *testing.F) {
	rnd := rand.New(rand.NewPCG(5, 6))
	for range 20 {
		wire, err := proto.Marshal(anyResponse(rnd))
		if err != nil {
			f.Fatal(err)
		}
		f.Add(wire)
	}
	f.Fuzz(func(t *testing.T, wire []byte) {
		a := newAnswer(options{}, wire, 0)
		if a == nil {
			return
		}
		want := &pb.RangeResponse{}
		if proto.Unmarshal(wire, want) != nil {
			return // etcd sends no such thing, and the client says so
		}
		if got, err := decoded.of(a, a.rev()); err != nil || !proto.Equal(got, want) {
			t.Fatalf("got %v, %v\nwant %v", got, err, want)
		}
	})
}
