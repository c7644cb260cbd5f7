package witness

import (
	"context"
	"fmt"
	"sync"
	"testing"
	"time"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	"go.etcd.io/etcd/api/v3/mvccpb"

	"github.com/sharder/sharder/integration/history"
)

// Tenants hold leases with a key each: some keep theirs alive, through whichever server
// answers, and must never lose them; others forget theirs, which must end. The caller stops them.
type Tenants struct {
	t       testing.TB
	log     *history.Log
	servers []Server
	stopped chan struct{}
	wg      sync.WaitGroup

	kept, forgotten []string // keys
}

// keptTTL is longer than anything is broken, and forgottenTTL is short. Seconds.
const (
	keptTTL      = 12
	forgottenTTL = 3
)

// StartTenants has so many keep a lease alive. What they write is in the log.
func StartTenants(t testing.TB, log *history.Log, kept int, servers ...Server) *Tenants {
	t.Helper()
	l := &Tenants{t: t, log: log, servers: servers, stopped: make(chan struct{})}
	for i := range kept {
		id, key := l.lease(servers[i%len(servers)], keptTTL, fmt.Sprint("kept-", i))
		l.kept = append(l.kept, key)
		l.wg.Go(func() { l.keep(i, id) })
	}
	return l
}

// lease grants one and puts a key with it, until both have been acknowledged; another key for
// each attempt, since what was not acknowledged may happen all the same.
func (l *Tenants) lease(s Server, ttl int64, name string) (id int64, key string) {
	l.t.Helper()
	n := 0
	Eventually(l.t, Bound, "a lease for "+name, func() bool {
		ctx, cancel := context.WithTimeout(context.Background(), 2*time.Second)
		defer cancel()
		g, err := pb.NewLeaseClient(s.Conn).LeaseGrant(ctx, &pb.LeaseGrantRequest{TTL: ttl})
		if err != nil {
			return false
		}
		n++
		id, key = g.ID, fmt.Sprint(name, "-", n)
		l.log.Elsewhere(&pb.DeleteRangeRequest{Key: []byte(key)}) // the lease may end
		return l.log.Do(ctx, -2, s.Name, pb.NewKVClient(s.Conn), &pb.PutRequest{Key: []byte(key), Lease: id}).Err == nil
	})
	return id, key
}

// keep renews a lease every second, on a stream of its own, at the next server after each failure.
func (l *Tenants) keep(i int, id int64) {
	for n := i; ; n++ {
		ctx, cancel := context.WithCancel(context.Background())
		if s, err := pb.NewLeaseClient(l.servers[n%len(l.servers)].Conn).LeaseKeepAlive(ctx); err == nil {
			for l.renew(cancel, s, id) {
			}
		}
		cancel()
		select {
		case <-l.stopped:
			return
		case <-time.After(100 * time.Millisecond):
		}
	}
}

// renew renews it once, and rests; false if that failed or all is over.
func (l *Tenants) renew(cancel context.CancelFunc, s pb.Lease_LeaseKeepAliveClient, id int64) bool {
	late := time.AfterFunc(2*time.Second, cancel)
	defer late.Stop()
	if s.Send(&pb.LeaseKeepAliveRequest{ID: id}) != nil {
		return false
	}
	r, err := s.Recv()
	if err == nil && r.TTL <= 0 {
		l.t.Errorf("lease %x was kept alive and has ended", id)
	}
	late.Stop()
	select {
	case <-l.stopped:
		return false
	case <-time.After(time.Second):
	}
	return err == nil && r.TTL > 0
}

// Forget grants a lease that nobody keeps alive.
func (l *Tenants) Forget(s Server) {
	l.t.Helper()
	_, key := l.lease(s, forgottenTTL, fmt.Sprint("forgotten-", len(l.forgotten)))
	l.forgotten = append(l.forgotten, key)
}

// Settle waits until all that was forgotten has ended, wants all that was kept alive to be there,
// and ends those who keep it alive.
func (l *Tenants) Settle() {
	l.t.Helper()
	for _, s := range l.servers {
		for _, key := range l.forgotten {
			Eventually(l.t, Bound, key+" is gone, says "+s.Name, func() bool { return l.count(s, key) == 0 })
		}
		for _, key := range l.kept {
			Eventually(l.t, Bound, key+" is there, says "+s.Name, func() bool { return l.count(s, key) == 1 })
		}
	}
	close(l.stopped)
	l.wg.Wait()
	l.t.Logf("%d leases were kept alive, %d forgotten", len(l.kept), len(l.forgotten))
}

// count reads a key; -1 if that failed.
func (l *Tenants) count(s Server, key string) int64 {
	ctx, cancel := context.WithTimeout(context.Background(), 2*time.Second)
	defer cancel()
	r, err := pb.NewKVClient(s.Conn).Range(ctx, &pb.RangeRequest{Key: []byte(key)})
	if err != nil {
		return -1
	}
	return r.Count
}

// Check wants the history, up to when they settled, to have no end of a lease that was kept
// alive, and one of each that was forgotten.
func (l *Tenants) Check(timeline *history.Timeline) {
	l.t.Helper()
	ended := map[string]int{}
	for _, ev := range timeline.Selected(Watching("\x00", "\x00", 0), 0) {
		if ev.Type == mvccpb.Event_DELETE {
			ended[string(ev.Kv.Key)]++
		}
	}
	for _, key := range l.kept {
		if ended[key] > 0 {
			l.t.Errorf("%s was deleted, and its lease was kept alive", key)
		}
	}
	for _, key := range l.forgotten {
		if ended[key] != 1 {
			l.t.Errorf("%s was deleted %d times", key, ended[key])
		}
	}
}
