package watch_test

import (
	"fmt"
	"strings"
	"testing"
	"time"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
)

func TestNowBeginsBehindTheCreatedHeader(t *testing.T) {
	t.Parallel()
	r := newRig(t, 1, nil)
	c := r.etcds[0].Client()
	r.put(t, c, "k", "before")
	w := r.raw(t, t.Context())
	w.create(&pb.WatchCreateRequest{Key: []byte("k")})
	created := w.next()
	if !created.Created || created.WatchId != 0 || created.Header.Revision != 2 {
		t.Fatalf("created %v", created)
	}
	r.put(t, c, "k", "after")
	if got := w.events(1)[0]; got != "PUT k=after@3" {
		t.Fatal(got)
	}
}

func TestStartRevisionGivesExactlyTheEventsFromThere(t *testing.T) {
	t.Parallel()
	r := newRig(t, 1, nil)
	if rev := fill(t, r.etcds[0], "k", 3000); rev != 3001 {
		t.Fatal(rev)
	}
	live := r.raw(t, t.Context())
	live.create(&pb.WatchCreateRequest{Key: []byte("k"), RangeEnd: []byte("l")})
	live.next()
	w := r.raw(t, t.Context())
	for _, start := range []int64{1, 2, 1500, 3001, 3002, 3005} {
		w.create(&pb.WatchCreateRequest{Key: []byte("k"), RangeEnd: []byte("l"), StartRevision: start})
		id := w.next().WatchId
		var got []string
		if n := int(3001 - max(start, 2) + 1); n > 0 {
			got = w.events(n)
		}
		for i, ev := range got {
			if want := fmt.Sprintf("@%d", max(start, 2)+int64(i)); !strings.HasSuffix(ev, want) {
				t.Fatalf("start %d: event %d is %s, want %s", start, i, ev, want)
			}
		}
		w.cancel(id)
		if m := w.next(); !m.Canceled || m.WatchId != id {
			t.Fatalf("start %d: %v", start, m)
		}
	}
}

func TestWatchOverShardsMergesTheirEvents(t *testing.T) {
	t.Parallel()
	r := newRig(t, 3, nil)
	w := r.raw(t, t.Context())
	w.create(&pb.WatchCreateRequest{Key: []byte{0}, RangeEnd: []byte{0}})
	w.next()
	for i, k := range []string{"a", "j", "z"} {
		r.put(t, r.etcds[i].Client(), k, "1")
	}
	got := strings.Join(w.events(3), " ")
	for _, k := range []string{"a=1", "j=1", "z=1"} {
		if !strings.Contains(got, k) {
			t.Fatalf("%s misses %s", got, k)
		}
	}
	w.create(&pb.WatchCreateRequest{Key: []byte{0}, RangeEnd: []byte{0}, StartRevision: 2})
	m := w.next()
	if !m.Created || !m.Canceled || m.WatchId != -1 || !strings.Contains(m.CancelReason, "a, b, c") {
		t.Fatalf("%v", m)
	}
}

func TestProgressFollowsTheEvents(t *testing.T) {
	t.Parallel()
	r := newRig(t, 1, nil)
	c := r.etcds[0].Client()
	f := newFeed(t, t.Context(), r.endpoint)
	f.add(&pb.WatchCreateRequest{Key: []byte("k")})
	if m := f.answer(); m.WatchId != -1 || m.Header.Revision != 1 || len(m.Events) != 0 {
		t.Fatalf("%v", m)
	}
	late := f.owed() // if it had to be asked more than once
	rev := r.put(t, c, "other", "1")
	m := f.answer()
	for ; late > 0 && m.Header.Revision < rev; late-- {
		m = f.answer()
	}
	if m.WatchId != -1 || m.Header.Revision != rev {
		t.Fatalf("%v, want %d", m, rev)
	}
}

func TestWatchSurvivesARestartOfItsShard(t *testing.T) {
	t.Parallel()
	r := newRig(t, 2, nil)
	w := r.raw(t, t.Context())
	w.create(&pb.WatchCreateRequest{Key: []byte("a"), RangeEnd: []byte("b")})
	w.next()
	w.create(&pb.WatchCreateRequest{Key: []byte("j"), RangeEnd: []byte("k")})
	w.next()
	r.put(t, r.etcds[0].Client(), "a", "1")
	w.events(1)
	r.etcds[0].Restart()
	r.put(t, r.etcds[1].Client(), "j", "1")
	if got := w.events(1)[0]; got != "PUT j=1@2" {
		t.Fatal(got)
	}
	r.put(t, r.etcds[0].Client(), "a", "2")
	if got := w.events(1)[0]; got != "PUT a=2@3" {
		t.Fatal(got)
	}
	w.silent(200 * time.Millisecond)
}

func TestTenThousandWatchersShareOneUpstreamWatcher(t *testing.T) {
	t.Parallel()
	r := newRig(t, 1, nil)
	c := r.etcds[0].Client()
	const streams, each = 50, 200
	var ws []*raw
	began := time.Now()
	for range streams {
		w := r.raw(t, t.Context())
		for range each {
			w.create(&pb.WatchCreateRequest{Key: []byte("k")})
		}
		ws = append(ws, w)
	}
	for _, w := range ws {
		for range each {
			w.next()
		}
	}
	t.Logf("created in %v", time.Since(began))
	if st := r.server.Stats(); st.Watches != streams*each || st.Upstream["a"] != 1 {
		t.Fatalf("%+v", st)
	}
	began = time.Now()
	r.put(t, c, "k", "1")
	for _, w := range ws {
		w.events(each)
	}
	t.Logf("delivered in %v", time.Since(began))
}
