package cache

import (
	"context"
	"log/slog"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/sourcegraph/conc/panics"
)

// feed is the watchers of one identity: one Watch stream of the shard with a watcher for
// each cell. It is opened for the first cell and ends with the last, or with the stream:
// then all its cells are dead, since nobody knows what they have missed. Cells are made
// anew by those who ask again, and there is no second stream for a second, so that a shard
// that is away is not asked too often.
type feed struct {
	cache *Cache
	who   who
	key   string

	life   atomic.Pointer[life] // the newest sign of life
	wanted atomic.Bool          // there were hits since the last question
	wake   chan struct{}        // holds a token if the writer has something to do
	soon   atomic.Bool          // a read was turned away since the last sign of life is too old

	mu       sync.Mutex
	cells    map[*cell]int64 // with the id of the watcher, noWatch if there is none yet
	byID     map[int64]*cell // those whose watcher is there
	queue    []command       // what the writer has yet to send; a few for each cell
	creates  []create        // sent and not answered, in order
	stands   []stand         // where the member stood, newest last, and what came up to there is not known
	lastAsk  int64
	finished bool // takes no cells any more
}

// life is a sign of life of a stream: everything up to rev has come and was handed out,
// and everything that the member had at asked is that. It counts for the watchers that
// were known to be there when the progress answer came that said so.
type life struct {
	number int64 // of progress answers so far
	rev    int64
	asked  int64
}

// stand is where a member stood that was asked at a time, or later: what it had by then is
// not newer.
type stand struct{ asked, rev int64 }

// mostStands is how many are remembered.
const mostStands = 8

// command is one thing for the writer to send: create the watcher of a cell, or cancel
// one.
type command struct {
	create *cell
	cancel int64
}

// create is one that was sent: for a cell, or only to learn where the member stands.
type create struct {
	cell  *cell
	probe bool
	sent  int64
}

// noWatch stands for no watch id; etcd gives out ids from 0 on.
const noWatch = -1

// feedBytes is what a feed counts, for its stream and the goroutines on both sides.
const feedBytes = 32 << 10

// feedShare is the part of the memory that feeds may take up: clients who make up tokens
// must not have all the streams that they like.
const feedShare = 4

// feedFor gives the feed of an identity, a new one if there is none; nil if there can be
// none now. c.mu is held.
func (c *Cache) feedFor(w who) *feed {
	key := w.key()
	if f := c.feeds[key]; f != nil {
		f.mu.Lock()
		defer f.mu.Unlock()
		if f.finished {
			return nil
		}
		return f
	}
	if int64(len(c.feeds)+1)*feedBytes > max(c.opts.Bytes/feedShare, feedBytes) {
		return nil
	}
	f := &feed{cache: c, who: w, key: key, wake: make(chan struct{}, 1), cells: map[*cell]int64{}, byID: map[int64]*cell{}}
	f.life.Store(&life{})
	c.feeds[key] = f
	c.running.Go(func() { f.run(c.ctx) })
	return f
}

// key spells an identity so that no two spell the same.
func (w who) key() string {
	var b strings.Builder
	for _, vs := range [][]string{w.token, w.authorization} {
		b.WriteString(strconv.Itoa(len(vs)))
		for _, v := range vs {
			b.WriteString(strconv.Quote(v))
		}
	}
	return b.String()
}

// run serves the stream until it ends, or nobody needs it.
func (f *feed) run(ctx context.Context) {
	var err error
	if p := panics.Try(func() { err = f.serve(ctx) }); p != nil {
		err = p.AsError()
	}
	if err != nil && ctx.Err() == nil {
		f.cache.opts.Logger.Debug("watch stream of the cache ended", slog.String("shard", f.cache.opts.Shard.Name), slog.Any("error", err))
		f.end()
		_ = pause(ctx, time.Second)
	}
	f.end()
	f.cache.mu.Lock()
	delete(f.cache.feeds, f.key)
	f.cache.mu.Unlock()
}

// end kills the cells and takes no more.
func (f *feed) end() {
	f.cache.mu.Lock()
	defer f.cache.mu.Unlock()
	f.mu.Lock()
	f.finished = true
	var cells []*cell
	for x := range f.cells {
		cells = append(cells, x)
	}
	f.mu.Unlock()
	for _, x := range cells {
		f.cache.remove(x)
	}
}

// retire ends a feed without cells; it tells whether there are none.
func (f *feed) retire() bool {
	f.cache.mu.Lock() // nobody joins meanwhile
	defer f.cache.mu.Unlock()
	f.mu.Lock()
	defer f.mu.Unlock()
	f.finished = len(f.cells) == 0
	return f.finished
}

// pause waits, unless the context ends first.
func pause(ctx context.Context, d time.Duration) error {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
		return nil
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}

// join has a watcher made for a cell and gives what the feed takes up more. The cache's
// mutex is held, as with leave.
func (f *feed) join(x *cell) (grown int64) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if len(f.cells) == 0 {
		grown = feedBytes
	}
	f.cells[x] = noWatch
	f.queue = append(f.queue, command{create: x})
	f.signal()
	return grown
}

// leave has the watcher of a cell cancelled and gives what the feed takes up less.
func (f *feed) leave(x *cell) (shrunk int64) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if id := f.cells[x]; id != noWatch {
		delete(f.byID, id)
		f.queue = append(f.queue, command{cancel: id})
	}
	delete(f.cells, x)
	if len(f.cells) == 0 {
		shrunk = feedBytes
	}
	f.signal()
	return shrunk
}

// want notes a hit: whoever is asked is worth a sign of life.
func (f *feed) want() {
	if !f.wanted.Load() {
		f.wanted.Store(true)
	}
}

// hurry has the shard asked for a sign of life at once: there was none for too long.
func (f *feed) hurry() {
	f.want()
	if !f.soon.Load() {
		f.soon.Store(true)
		f.signal()
	}
}

func (f *feed) signal() {
	select {
	case f.wake <- struct{}{}:
	default:
	}
}
