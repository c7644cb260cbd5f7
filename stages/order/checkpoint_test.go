package order

import (
	"errors"
	"math/rand/v2"
	"reflect"
	"testing"

	"go.etcd.io/etcd/api/v3/mvccpb"
)

// storedState is a checkpoint as version 1 has written it; docs/order-log.md explains it
// byte by byte. It has to be read for ever.
const storedState = "\x01\xbc\x01" +
	`{"deployment":"00c0ffee00000001","fingerprint":"f","routes":null,"shards":[` +
	`{"name":"a","cluster_id":0,"revision":2,"internal":[2]},{"name":"b","cluster_id":0,"revision":3,"internal":[3]}]}` +
	"\x15\x04\xae\x02\x03" + "\xac\x02\x05" +
	"\x02\x01\x01\x01\x01\xaa\x02\x01" + "\x02\x01\x02\x01\x01\x02\xaa\x02"

func TestCheckpointsOfEarlierVersionsAreReadAndWrittenAsDescribed(t *testing.T) {
	want := &state{}
	for i, e := range []Entry{
		{Genesis: &Genesis{Deployment: "00c0ffee00000001", Fingerprint: "f", Shards: []GenesisShard{
			{Name: "a", Revision: 2, Internal: []int64{2}}, {Name: "b", Revision: 3, Internal: []int64{3}}}}},
		{Cover: []Covered{{0, 4}}},
		{Cover: []Covered{{0, 300}, {1, 5}}},
		{Compacted: 3},
	} {
		if err := want.replay([]int64{12, 13, 20, 21}[i], e); err != nil {
			t.Fatal(err)
		}
	}
	got, err := decodeState([]byte(storedState))
	if err != nil || !reflect.DeepEqual(got, want) {
		t.Fatalf("%+v, %v\nwant %+v", got, err, want)
	}
	again, err := decodeState(want.freeze().encode())
	if err != nil || !reflect.DeepEqual(again, want) {
		t.Fatalf("%+v, %v\nwant %+v", again, err, want)
	}
}

func TestStatesSurviveTheirCheckpoints(t *testing.T) {
	for seed := range uint64(200) {
		rnd := rand.New(rand.NewPCG(seed, 4))
		s, _ := randomState(t, rnd, rnd.IntN(40))
		b := s.freeze().encode()
		got, err := decodeState(b)
		if err != nil {
			t.Fatal(err)
		}
		if !reflect.DeepEqual(s, got) {
			t.Fatalf("seed %d:\n%+v\n%+v", seed, s, got)
		}
	}
}

// A state that goes on and one that was loaded at some point and goes on are the same.
func TestAStateGoesOnFromItsCheckpoint(t *testing.T) {
	for seed := range uint64(100) {
		rnd := rand.New(rand.NewPCG(seed, 5))
		s, n := randomState(t, rnd, rnd.IntN(20))
		other, err := decodeState(s.freeze().encode())
		if err != nil {
			t.Fatal(err)
		}
		for range 10 {
			e := Entry{Cover: append(randomCover(rnd, n.covered), Covered{len(n.covered) - 1, n.covered[len(n.covered)-1] + 1})[:1]}
			n.cover(e.Cover)
			for _, st := range []*state{s, other} {
				if err := st.replay(st.pos+1, e); err != nil {
					t.Fatal(err)
				}
			}
		}
		if !reflect.DeepEqual(s, other) {
			t.Fatalf("seed %d:\n%+v\n%+v", seed, s, other)
		}
	}
}

// What is frozen stays as it is while the state goes on.
func TestAFrozenStateStaysAsItIs(t *testing.T) {
	rnd := rand.New(rand.NewPCG(1, 6))
	s, n := randomState(t, rnd, 20)
	f := s.freeze()
	before := f.encode()
	for range 50 {
		for i := range n.covered {
			n.covered[i]++
			if err := s.replay(s.pos+1, Entry{Cover: []Covered{{i, n.covered[i]}}}); err != nil {
				t.Fatal(err)
			}
		}
	}
	if string(f.encode()) != string(before) {
		t.Fatal("it changed")
	}
}

func TestNewerCheckpointsAreRefused(t *testing.T) {
	if _, err := decodeState([]byte{stateVersion + 1, 1, 2, 3}); !errors.Is(err, ErrNewer) {
		t.Fatal(err)
	}
}

func TestEveryDamageToACheckpointIsRefusedOrHarmless(t *testing.T) {
	rnd := rand.New(rand.NewPCG(1, 7))
	s, _ := randomState(t, rnd, 30)
	whole := s.freeze().encode()
	for n := range whole {
		if _, err := decodeState(whole[:n]); !errors.Is(err, errCorrupt) {
			t.Fatalf("cut off at %d of %d: %v", n, len(whole), err)
		}
		for range 8 {
			b := append([]byte(nil), whole...)
			b[n] ^= byte(1 << rnd.IntN(8))
			checkDecoded(t, b)
		}
	}
	if _, err := decodeState(append(whole, 0)); !errors.Is(err, errCorrupt) {
		t.Fatalf("with something behind it: %v", err)
	}
}

// checkDecoded: bytes are refused as corrupt or newer, or are a state that can be used.
func checkDecoded(t *testing.T, b []byte) {
	t.Helper()
	s, err := decodeState(b)
	if err != nil {
		if !errors.Is(err, errCorrupt) && !errors.Is(err, ErrNewer) {
			t.Fatal(err)
		}
		return
	}
	for i, m := range s.maps {
		last := run{}
		for _, r := range m {
			if r.start <= last.end() || r.global < last.global+last.length-1 || r.end() > s.covered[i] || r.global+r.length-1 > s.revision {
				t.Fatalf("shard %d: run %v after %v, covered up to %d, the newest revision is %d", i, r, last, s.covered[i], s.revision)
			}
			last = r
		}
		s.vector(s.compacted)
		s.complete(i, m[0].start)
	}
	if _, err := decodeState(s.freeze().encode()); err != nil {
		t.Fatalf("read, but not again: %v", err)
	}
}

func FuzzCheckpoint(f *testing.F) {
	f.Add([]byte(storedState))
	f.Add([]byte{1, 0})
	f.Fuzz(func(t *testing.T, b []byte) { checkDecoded(t, b) })
}

// FuzzNotice: whatever the notice of a checkpoint says, it is refused, or nothing of it is
// so large or so small that loading it would hurt.
func FuzzNotice(f *testing.F) {
	f.Add([]byte(`{"version":1,"position":5,"swept":3,"id":7,"pieces":2,"bytes":70000}`))
	f.Add([]byte(`{"version":9}`))
	f.Fuzz(func(t *testing.T, b []byte) {
		c, err := parseCheckpoint(&mvccpb.KeyValue{Value: b})
		if err != nil {
			if !errors.Is(err, errCorrupt) && !errors.Is(err, ErrNewer) {
				t.Fatal(err)
			}
			return
		}
		if c.Bytes < 1 || c.Pieces < 1 || c.Bytes > c.Pieces*pieceBytes {
			t.Fatalf("%+v", c)
		}
		if again, err := parseCheckpoint(&mvccpb.KeyValue{Value: c.encode()}); err != nil || again != c {
			t.Fatalf("%+v is written and read as %+v, %v", c, again, err)
		}
	})
}
