package lease

import (
	"context"
	"errors"
	"sync"
	"time"

	"github.com/sourcegraph/conc"
	"github.com/sourcegraph/conc/pool"

	"github.com/sharder/sharder/stages"
	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	"go.etcd.io/etcd/api/v3/mvccpb"
)

// sweep looks after what can be left behind and after what was there before: on
// the given shards it revokes husks and takes note of native leases, at home it
// removes aliases that have served their time. It fails if home can't be read; a
// shard that can't be asked is left for later, and logged.
func (m *Manager) sweep(ctx context.Context, shards []*stages.Shard) error {
	lists := m.listAll(ctx, shards)
	aliases, err := m.listAliases(ctx)
	if err != nil {
		return err
	}
	// The markers are read after the lists. See the package's documentation.
	recorded := make(map[int64]bool)
	err = m.home.pages(ctx, markerPrefix, false, func() { clear(recorded) }, func(page *pb.RangeResponse) error {
		for _, kv := range page.Kvs {
			rec, err := parseMarker(kv)
			if err != nil {
				return at(m.o.Home, err)
			}
			recorded[rec.shardID] = true
		}
		return nil
	})
	if err != nil {
		return err
	}
	var wg conc.WaitGroup
	for i, s := range shards {
		if lists[i] != nil {
			wg.Go(func() { m.sweepShard(ctx, s, *lists[i], recorded) })
		}
	}
	wg.Wait()
	m.sweepAliases(ctx, aliases, recorded)
	return ctx.Err()
}

// listAll lists the leases of the shards; nil for one that didn't answer.
func (m *Manager) listAll(ctx context.Context, shards []*stages.Shard) []*[]int64 {
	lists := make([]*[]int64, len(shards))
	var wg conc.WaitGroup
	for i, s := range shards {
		wg.Go(func() {
			ids, err := m.listLeases(ctx, s)
			if err != nil {
				m.o.Logger.Warn("leases of a shard can't be listed", "shard", s.Name, "error", err)
				return
			}
			lists[i] = &ids
		})
	}
	wg.Wait()
	return lists
}

// sweepShard sorts out the leases of a shard that have no marker.
func (m *Manager) sweepShard(ctx context.Context, s *stages.Shard, listed []int64, recorded map[int64]bool) {
	m.forgetNatives(ctx, s, listed, recorded)
	var mu sync.Mutex
	var natives []int64
	var failed error
	p := pool.New().WithMaxGoroutines(sweepers)
	for _, id := range listed {
		if has, _ := m.native.find(id); recorded[id] || has == s || stages.OwnLease(id) {
			continue
		}
		if ctx.Err() != nil {
			break
		}
		p.Go(func() {
			native, err := m.sweepLease(ctx, s, id)
			mu.Lock()
			defer mu.Unlock()
			failed = errors.Join(failed, err)
			if native {
				natives = append(natives, id)
			}
		})
	}
	p.Wait()
	if m.native.isPending(s) {
		// From now on an id that isn't found is said not to exist. What the shard let
		// expire before it was listed must have been seen by then.
		failed = errors.Join(failed, m.coverHead(ctx, m.places.of(s)))
	}
	if failed = errors.Join(failed, ctx.Err()); failed != nil {
		m.o.Logger.Warn("leases of a shard can't be told apart yet", "shard", s.Name, "error", failed)
		return
	}
	m.native.add(s, natives)
}

// forgetNatives drops what is no native any more: it has ended, or was a lease of
// ours, seen at home when it had no records yet. That a list leaves it out is not
// enough, since the member that answered may lag.
func (m *Manager) forgetNatives(ctx context.Context, s *stages.Shard, listed []int64, recorded map[int64]bool) {
	here := setOf(listed)
	for _, id := range m.native.of(s) {
		switch {
		case recorded[id]:
			m.native.drop(id)
		case !here[id]:
			_, _ = m.nativeAlive(ctx, s, id) // drops it if it has ended
		}
	}
}

// sweepers is how many leases of one shard are looked at at once.
const sweepers = 16

// sweepLease looks at one lease without a marker: a husk is revoked, any other is
// the shard's own.
func (m *Manager) sweepLease(ctx context.Context, s *stages.Shard, id int64) (native bool, err error) {
	r, err := m.askTTL(ctx, s, &pb.LeaseTimeToLiveRequest{ID: id})
	if err != nil || noLease(r) {
		return false, err
	}
	if r.GrantedTTL != shardTTL {
		return true, nil
	}
	if err = m.endHusk(ctx, m.places.of(s), id); err == nil {
		m.o.Logger.Info("revoked a lease on a shard whose lease at home has ended", "shard", s.Name, "id", hexID(id))
	}
	return false, err
}

// deadAliases are aliases seen without their lease, and since when. No clock is
// compared with another one, and nothing is written when a lease ends; in exchange
// an alias lives longer if sharders are restarted.
type deadAliases struct {
	since map[int64]time.Time // used by one sweep at a time
}

// listAliases lists the shard ids that have an alias record.
func (m *Manager) listAliases(ctx context.Context) (ids []int64, err error) {
	err = m.home.pages(ctx, aliasPrefix, true, func() { ids = nil }, func(page *pb.RangeResponse) error {
		for _, kv := range page.Kvs {
			if id, _, ok := idOf(kv.Key, aliasPrefix); ok {
				ids = append(ids, id)
			}
		}
		return nil
	})
	return ids, err
}

// sweepAliases deletes those whose lease has been gone for long enough. An alias is
// written together with its marker, and was listed before the markers: without one
// its lease has ended.
func (m *Manager) sweepAliases(ctx context.Context, listed []int64, recorded map[int64]bool) {
	now := time.Now()
	since := make(map[int64]time.Time)
	for _, id := range listed {
		if recorded[id] {
			continue
		}
		first, seen := m.dead.since[id]
		if !seen {
			first = now
		}
		if now.Sub(first) < m.o.AliasRetention || m.deleteAlias(ctx, id) != nil {
			since[id] = first
		}
	}
	m.dead.since = since
}

func (m *Manager) deleteAlias(ctx context.Context, id int64) error {
	_, err := m.home.rawTxn(ctx, &pb.TxnRequest{Success: []*pb.RequestOp{opDelete(aliasKey(id), nil)}})
	return err
}

// scan finds the leases that are owed, and remembers some that are live. rev is the
// revision of home from which on a watch sees everything that the scan may have
// missed. Each page is read at one revision of its own, markers and ticks together.
func (m *Manager) scan(ctx context.Context) (rev int64, err error) {
	from := ""
	for {
		end := prefixEnd(markerPrefix)
		r, err := m.home.rawTxn(ctx, &pb.TxnRequest{Success: []*pb.RequestOp{
			opRange(&pb.RangeRequest{Key: []byte(markerPrefix + from), RangeEnd: end, Limit: pageSize}),
			opRange(&pb.RangeRequest{Key: []byte(tickPrefix + from), RangeEnd: prefixEnd(tickPrefix), Limit: pageSize, KeysOnly: true}),
		}})
		if err != nil {
			return 0, err
		}
		if rev == 0 {
			rev = r.Header.Revision + 1
		}
		markers, ticks := r.Responses[0].GetResponseRange(), r.Responses[1].GetResponseRange()
		m.scanPage(markers.Kvs, ticks.Kvs)
		if !markers.More || len(markers.Kvs) == 0 {
			return rev, nil
		}
		last := markers.Kvs[len(markers.Kvs)-1].Key
		from = string(last[len(markerPrefix):]) + "\x00"
	}
}

// scanPage compares a page of markers with the ticks from the same id on. There is
// no tick without a marker, so as many ticks as markers are enough.
func (m *Manager) scanPage(markers, ticks []*mvccpb.KeyValue) {
	ticking := make(map[int64]bool, len(ticks))
	for _, kv := range ticks {
		if id, _, ok := idOf(kv.Key, tickPrefix); ok {
			ticking[id] = true
		}
	}
	for _, kv := range markers {
		rec, err := parseMarker(kv)
		switch {
		case err != nil:
			m.o.Logger.Error("unreadable lease record", "error", err)
		case ticking[rec.id]:
			m.known.learn(rec)
		default:
			m.debts.add(rec.id, time.Now())
		}
	}
}
