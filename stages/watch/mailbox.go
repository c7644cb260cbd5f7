package watch

import (
	"context"
	"sync"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
)

// mailbox is the bounded link between the shards' events and one client stream: many
// push, one takes. It is bounded in responses and in bytes; who finds it full is told
// so and never waits with a lock held. Responses to the client's own requests are
// always taken: the client's next request is read only when there is room again.
type mailbox struct {
	mu    sync.Mutex
	items []item
	bytes int64
	limit int64         // bytes
	slots int           // responses, besides one for each watch
	extra int           // watches on the stream
	some  chan struct{} // holds a token when items may be there
	room  chan struct{} // closed when the mailbox is half empty again; nil when nobody waits for that
}

// keptSlots is how large an empty mailbox's array may stay; a burst's is given back.
const keptSlots = 32

// item is one response on its way to the client.
type item struct {
	response *pb.WatchResponse
	watch    *watch // whose events these are; nil for any other response
	fragment bool   // the client asked for large responses in pieces
	bytes    int64
}

func newMailbox(slots int, limit int64) *mailbox {
	return &mailbox{limit: limit, slots: slots, some: make(chan struct{}, 1)}
}

// watches changes the number of watches by n; each has a slot of its own.
func (m *mailbox) watches(n int) {
	m.mu.Lock()
	m.extra += n
	m.mu.Unlock()
}

// full tells whether n more bytes are too many. A single response is never too large.
func (m *mailbox) full(n int64) bool {
	return len(m.items) > 0 && (len(m.items) >= m.slots+m.extra || m.bytes+n > m.limit)
}

// offer takes the item if there is room and tells whether it did.
func (m *mailbox) offer(it item) bool {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.full(it.bytes) {
		return false
	}
	m.put(it)
	return true
}

// force takes the item in any case: for responses to the client's own requests.
func (m *mailbox) force(it item) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.put(it)
}

func (m *mailbox) put(it item) {
	m.items = append(m.items, it)
	if it.watch != nil {
		evs := it.response.Events
		it.watch.newest = max(it.watch.newest, evs[len(evs)-1].Kv.ModRevision)
	}
	m.bytes += it.bytes
	select {
	case m.some <- struct{}{}:
	default:
	}
}

// newest is the newest revision that went in with events of a watch, 0 if none did.
func (m *mailbox) newest(w *watch) int64 {
	m.mu.Lock()
	defer m.mu.Unlock()
	return w.newest
}

// forceMade is force for an item that depends on what has gone in before it; mu is held
// while it is made.
func (m *mailbox) forceMade(make func() item) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.put(make())
}

// half tells whether at most half of the room is used.
func (m *mailbox) half() bool {
	return len(m.items) <= (m.slots+m.extra)/2 && m.bytes <= m.limit/2
}

// take waits for an item. It is called by one goroutine only.
func (m *mailbox) take(ctx context.Context) (item, error) {
	for {
		if it, ok := m.pop(); ok {
			return it, nil
		}
		select {
		case <-m.some:
		case <-ctx.Done():
			return item{}, context.Cause(ctx)
		}
	}
}

func (m *mailbox) pop() (item, bool) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if len(m.items) == 0 {
		return item{}, false
	}
	it := m.items[0]
	m.items[0] = item{}
	m.items = m.items[1:]
	m.bytes -= it.bytes
	if len(m.items) == 0 && cap(m.items) > keptSlots {
		m.items = nil
	}
	if m.room != nil && m.half() {
		close(m.room)
		m.room = nil
	}
	return it, true
}

// waitRoom returns when at most half of the mailbox is used and n more bytes fit, or
// with the context's cause.
func (m *mailbox) waitRoom(ctx context.Context, n int64) error {
	for {
		m.mu.Lock()
		if m.half() && !m.full(n) {
			m.mu.Unlock()
			return nil
		}
		if m.room == nil {
			m.room = make(chan struct{})
		}
		room := m.room
		m.mu.Unlock()
		select {
		case <-room:
		case <-ctx.Done():
			return context.Cause(ctx)
		}
	}
}

// used is what waits right now, in responses and bytes.
func (m *mailbox) used() (items int, bytes int64) {
	m.mu.Lock()
	defer m.mu.Unlock()
	return len(m.items), m.bytes
}
