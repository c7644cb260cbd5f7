package watch

import (
	"context"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
)

// This file is about how far a merge has come: who wants to know, waits for it, or has it
// said to the client.

// move notes that everything up to rev is in the mailbox; mu is held.
func (m *merge) move(rev int64) {
	if rev <= m.emitted {
		return
	}
	m.emitted = rev
	if m.moved != nil {
		close(m.moved)
		m.moved = nil
	}
}

// advance is move where nothing waits that is to go before, so that the notification that
// is due may go as well; mu is held.
func (m *merge) advance(rev int64) {
	m.move(rev)
	if m.notify && !m.dead && m.emitted >= m.watch.start {
		m.watch.session.mailbox.offer(item{response: &pb.WatchResponse{Header: m.order.Header(m.emitted), WatchId: m.watch.id}})
	}
	m.notify = false
}

// want has the merge work towards a global revision, and tells whether it is there.
func (m *merge) want(rev int64) bool {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.target = max(m.target, rev)
	m.stir()
	return m.emitted >= rev
}

// await waits until everything up to a global revision that is wanted is in the mailbox.
func (m *merge) await(ctx context.Context, rev int64) error {
	for {
		m.mu.Lock()
		if m.emitted >= rev {
			m.mu.Unlock()
			return nil
		}
		if m.moved == nil {
			m.moved = make(chan struct{})
		}
		moved := m.moved
		m.mu.Unlock()
		select {
		case <-moved:
		case <-ctx.Done():
			return context.Cause(ctx)
		}
	}
}

// announce has a progress notification sent.
func (m *merge) announce() {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.notify = true
	m.stir()
}

// at is how far the merge has come, a global revision.
func (m *merge) at() int64 {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.emitted
}
