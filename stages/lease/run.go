package lease

import (
	"context"
	"encoding/binary"
	"time"

	"github.com/cespare/xxhash/v2"
	"github.com/sourcegraph/conc"
	"github.com/sourcegraph/conc/panics"
	"google.golang.org/grpc/metadata"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	"go.etcd.io/etcd/api/v3/mvccpb"
	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"
)

// Recover does, before anything is served, what earlier sharders left undone: it
// finishes owed leases and sweeps. It fails if home can't be read before ctx is
// done. What a shard that is down prevents is left to Run.
func (m *Manager) Recover(ctx context.Context) error {
	rev, err := m.scan(ctx)
	if err != nil {
		return err
	}
	var wg conc.WaitGroup
	for range m.o.Workers {
		wg.Go(func() { m.payOnce(ctx) })
	}
	wg.Wait()
	if err := m.sweep(ctx, m.o.Shards); err != nil {
		return err
	}
	m.followed = rev
	return nil
}

// payOnce works on what is due, until nothing is.
func (m *Manager) payOnce(ctx context.Context) {
	for ctx.Err() == nil {
		b, _, ok := m.debts.take(time.Now())
		if !ok {
			return
		}
		m.pay(ctx, b)
	}
}

// Run follows the records at home, finishes the leases that end, and sweeps, until
// ctx is done. It returns ctx's error after everything it started has ended, open
// KeepAlive streams included. Without Recover before it, it does Recover's work.
func (m *Manager) Run(ctx context.Context) error {
	var wg conc.WaitGroup
	for range m.o.Workers {
		wg.Go(func() { m.payAll(ctx) })
	}
	wg.Go(func() { m.follow(ctx) })
	wg.Go(func() { m.sweepAgain(ctx) })
	wg.Wait()
	m.sessions.close()
	return ctx.Err()
}

// payAll is one worker.
func (m *Manager) payAll(ctx context.Context) {
	for {
		b, ok := m.debts.next(ctx)
		if !ok {
			return
		}
		m.pay(ctx, b)
	}
}

// pay finishes one lease, or puts it back. A panic is this lease's failure.
func (m *Manager) pay(ctx context.Context, b debt) {
	var err error
	if r := panics.Try(func() { err = m.settle(ctx, b.id) }); r != nil {
		err = r.AsError()
	}
	if err == nil || ctx.Err() != nil {
		return
	}
	if b.tries < 3 || b.tries%10 == 0 {
		m.o.Logger.Warn("a lease that has ended is not finished yet", "lease", hexID(b.id), "tries", b.tries+1, "error", err)
	}
	m.debts.again(b, time.Now())
}

// follow keeps a watch on the records.
func (m *Manager) follow(ctx context.Context) {
	rev := m.followed
	for delay := time.Duration(0); ctx.Err() == nil; {
		if delay > 0 && !sleep(ctx, delay) {
			return
		}
		before := rev
		var err error
		if rev == 0 {
			rev, err = m.scan(ctx)
		} else {
			rev, err = m.watch(ctx, rev)
		}
		if ctx.Err() != nil {
			return
		}
		if err != nil {
			m.o.Logger.Warn("lease records can't be followed", "home", m.o.Home.String(), "error", err)
		}
		if rev != before {
			delay = 0 // got somewhere
		}
		if err != nil || rev == before {
			delay = min(max(2*delay, 50*time.Millisecond), 2*time.Second)
		}
	}
}

// watch follows the records from a revision on and gives the one to go on from: 0
// if that history is gone and only a scan helps.
func (m *Manager) watch(ctx context.Context, rev int64) (int64, error) {
	ctx, cancel := context.WithCancel(metadata.AppendToOutgoingContext(ctx,
		rpctypes.MetadataRequireLeaderKey, rpctypes.MetadataHasLeader))
	defer cancel()
	w, err := pb.NewWatchClient(m.o.Home.Conn).Watch(ctx)
	if err != nil {
		return rev, err
	}
	err = w.Send(&pb.WatchRequest{RequestUnion: &pb.WatchRequest_CreateRequest{CreateRequest: &pb.WatchCreateRequest{
		Key: []byte(recordPrefix), RangeEnd: prefixEnd(recordPrefix), StartRevision: rev}}})
	for err == nil {
		var r *pb.WatchResponse
		if r, err = w.Recv(); err != nil {
			break
		}
		if r.CompactRevision != 0 {
			return 0, nil
		}
		if r.Canceled {
			return rev, gone(ctx, "watch of lease records ended: %s", r.CancelReason)
		}
		if r.Created {
			m.debts.hurry() // home may have been away, and with it all that failed
		}
		for _, e := range r.Events {
			m.see(e)
			rev = e.Kv.ModRevision + 1
		}
	}
	return rev, err
}

// see takes notice of one change of a record.
func (m *Manager) see(e *mvccpb.Event) {
	put := e.Type == mvccpb.Event_PUT
	if id, _, ok := idOf(e.Kv.Key, tickPrefix); ok && !put {
		m.debts.add(id, time.Now().Add(m.delay(id)))
		return
	}
	if id, _, ok := idOf(e.Kv.Key, markerPrefix); ok {
		if !put {
			m.debts.remove(id)
			m.known.forget(id)
		} else if rec, err := parseMarker(e.Kv); err == nil {
			m.known.learn(rec)
		}
	}
}

// delay spreads the sharders that see a lease end over a tenth of a second, another
// order for every lease, so that usually one has finished it when the next looks.
func (m *Manager) delay(id int64) time.Duration {
	var b [16]byte
	binary.LittleEndian.PutUint64(b[:8], uint64(id))
	binary.LittleEndian.PutUint64(b[8:], m.nonce)
	return time.Duration(xxhash.Sum64(b[:])%100) * time.Millisecond
}

// sweepAgain sweeps now and then, and sooner what could not be done before.
func (m *Manager) sweepAgain(ctx context.Context) {
	// Sharders that were started together need not sweep together.
	every := m.o.SweepEvery + m.o.SweepEvery/5*time.Duration(m.nonce%1000)/1000
	next := time.Now()
	if m.followed != 0 {
		next = next.Add(every)
	}
	for sleep(ctx, time.Second) {
		var err error
		now := time.Now()
		switch pending := m.native.pending(); {
		case !now.Before(next):
			err = m.sweep(ctx, m.o.Shards)
			next = now.Add(every)
		case len(pending) > 0:
			err = m.sweep(ctx, pending)
		}
		if m.debts.short() {
			_, err = m.scan(ctx)
		}
		if err != nil && ctx.Err() == nil {
			m.o.Logger.Warn("leases can't be swept", "error", err)
		}
	}
}
