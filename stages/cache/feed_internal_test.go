package cache

import (
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"google.golang.org/protobuf/proto"

	"github.com/sharder/sharder/stages"
	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	"go.etcd.io/etcd/api/v3/mvccpb"
)

// heard is a feed with one cell whose create has been sent, to which a test says what a
// shard may say, in orders that can't be had from one at will.
type heard struct {
	*feed
	x *cell
}

func newHeard(t *testing.T) heard {
	c := New(Options{Shard: &stages.Shard{Name: "a"}, MaxAge: time.Hour, AuthInterval: time.Hour})
	t.Cleanup(c.cancel)
	f := &feed{cache: c, wake: make(chan struct{}, 1), cells: map[*cell]int64{}, byID: map[int64]*cell{}}
	f.life.Store(&life{})
	x := newCell(query{key: []byte("k")}, c.now())
	x.feed = f
	c.ring = append(c.ring, x)
	c.index.add(x)
	f.join(x)
	h := heard{f, x}
	h.sendAll()
	return h
}

// sendAll has the writer send what is queued.
func (h heard) sendAll() {
	for h.next() != nil {
	}
}

func at(rev int64) *pb.ResponseHeader { return &pb.ResponseHeader{Revision: rev} }

func (h heard) isCreated(rev int64) {
	h.created(&pb.WatchResponse{Header: at(rev), WatchId: 7, Created: true})
}

func (h heard) event(rev int64) {
	h.feed.happened(&pb.WatchResponse{Header: at(rev), WatchId: 7, Events: []*mvccpb.Event{{Kv: &mvccpb.KeyValue{Key: []byte("k"), ModRevision: rev}}}})
}

// probed asks for a sign of life, as a hit makes the writer do, and tells where the member
// stood.
func (h heard) probed(t *testing.T, rev int64) {
	t.Helper()
	h.wanted.Store(true)
	h.lastAsk = -int64(time.Hour)
	if r, err := h.ask(); r == nil || err != nil {
		t.Fatal(r, err)
	}
	h.created(&pb.WatchResponse{Header: at(rev), WatchId: 8, Created: true})
}

// keeps tries to store an answer as of rev.
func (h heard) keeps(rev int64) bool {
	wire, _ := proto.Marshal(&pb.RangeResponse{Header: at(rev)})
	a := newAnswer(options{}, wire, h.cache.now())
	h.x.keep(a)
	return slices.Contains(*h.x.answers.Load(), a)
}

func (h heard) serves(maxAge time.Duration) int64 {
	_, rev := h.x.serve(&options{}, h.cache.now(), maxAge)
	return rev
}

// What was read before the member's revision at the create may miss what happened between.
func TestAnAnswerFromBeforeTheWatcherIsNotKept(t *testing.T) {
	h := newHeard(t)
	if h.keeps(10) {
		t.Error("there is no watcher yet")
	}
	h.isCreated(10)
	if h.keeps(9) {
		t.Error("what happened at 10 may be missed")
	}
	if !h.keeps(10) || h.serves(time.Hour) != 10 {
		t.Error("nothing can have been missed")
	}
}

// etcd may send a progress answer ahead of the answer to a create, and what happened
// before it behind both.
func TestASignOfLifeFromBeforeTheWatcherDoesNotCount(t *testing.T) {
	h := newHeard(t)
	h.stood(stand{asked: h.cache.now(), rev: 12})
	h.progressed(12)
	h.isCreated(10)
	if !h.keeps(10) || h.serves(time.Hour) != 10 {
		t.Fatalf("served as of %d: the event at 11 is still to come", h.serves(time.Hour))
	}
	h.event(11)
	if rev := h.serves(time.Hour); rev != 0 && rev != 11 {
		t.Errorf("served as of %d", rev)
	}
	h.progressed(12)
	if h.keeps(10) || !h.keeps(11) || h.serves(time.Hour) != 12 {
		t.Errorf("served as of %d: it is known to be true at 12", h.serves(time.Hour))
	}
}

// A progress answer says up to where all has come; only where the member stood at a time
// says how old that is. Which request it answers nobody knows: some have no answer.
func TestASignOfLifeIsAsOldAsTheStandThatItCovers(t *testing.T) {
	synctest.Test(t, asOldAsTheStand)
}

func asOldAsTheStand(t *testing.T) {
	h := newHeard(t)
	h.isCreated(10)
	if !h.keeps(10) {
		t.Fatal("not kept")
	}
	h.progressed(10) // so that the cell is covered by what comes
	const old = 50 * time.Millisecond
	time.Sleep(old + 1)
	if h.serves(old) != 0 {
		t.Fatal("there was no sign of life since it was read")
	}
	h.probed(t, 10)
	if h.serves(old) != 10 {
		t.Fatal("the member stands where all has come to")
	}
	time.Sleep(old + 1)
	h.probed(t, 12)
	if h.serves(old) != 0 {
		t.Fatal("what happened at 11 and 12 may be on its way")
	}
	h.progressed(11) // a late answer
	if h.serves(old) != 0 {
		t.Fatal("what happened at 12 may be on its way")
	}
	h.progressed(12)
	if rev := h.serves(old); rev != 12 {
		t.Fatalf("served as of %d: all has come that the member had", rev)
	}
}

// A shard that gives a watcher up, or does not give one, ends the cell, and the watcher is
// cancelled from here as well: etcd keeps it on its list until then.
func TestACancelledWatcherEndsTheCell(t *testing.T) {
	for name, end := range map[string]func(heard){
		"refused": func(h heard) {
			h.created(&pb.WatchResponse{Header: at(10), WatchId: noWatch, Created: true, Canceled: true})
		},
		"compacted": func(h heard) { h.isCreated(10); h.canceled(7) },
		"probe refused": func(h heard) {
			h.isCreated(10)
			h.probed(t, 10)
			h.lastAsk = -int64(time.Hour)
			h.wanted.Store(true)
			_, _ = h.ask()
			h.created(&pb.WatchResponse{Header: at(10), WatchId: noWatch, Created: true, Canceled: true})
		},
	} {
		h := newHeard(t)
		end(h)
		if h.keeps(10) && h.serves(time.Hour) != 0 || len(h.cells) != 0 || len(h.cache.ring) != 0 {
			t.Errorf("%s: the cell lives on", name)
		}
		cancelled := false
		for r := h.next(); r != nil; r = h.next() {
			cancelled = cancelled || r.GetCancelRequest().GetWatchId() == 7
		}
		if cancelled == (name == "refused") {
			t.Errorf("%s: watcher cancelled: %v", name, cancelled)
		}
	}
}

// A stream whose creates are not answered is given up.
func TestASilentStreamIsAnError(t *testing.T) {
	synctest.Test(t, silentStream)
}

func silentStream(t *testing.T) {
	h := newHeard(t)
	h.cache.opts.MaxAge = time.Millisecond
	if _, err := h.ask(); err != nil {
		t.Fatal(err)
	}
	h.creates[0].sent -= int64(2 * minPatience)
	if _, err := h.ask(); err != errSilent {
		t.Fatal(err)
	}
}
