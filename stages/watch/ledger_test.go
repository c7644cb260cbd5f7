package watch

import (
	"context"
	"math"
	"slices"
	"sync"

	"github.com/sharder/sharder/stages"
	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	"go.etcd.io/etcd/api/v3/mvccpb"
)

// Ledger is an order that a test writes by hand, for what the order log of today can't
// say: that revisions of several shards are one.
type Ledger struct {
	mu      sync.Mutex
	cut     stages.Cut
	entries []map[int]int64 // for each global revision from 2 on, the shards' revisions that it stands for
	changed chan struct{}
	swept   int64 // the compaction point
}

// NewLedger begins at global revision 1, with the shards at their first.
func NewLedger(shards int) *Ledger {
	return &Ledger{cut: stages.Cut{Revision: 1, At: slices.Repeat([]int64{1}, shards)}, changed: make(chan struct{})}
}

// Add gives the next global revision to what the shards did at these revisions of theirs,
// by shard number.
func (l *Ledger) Add(revs map[int]int64) int64 {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.entries = append(l.entries, revs)
	l.cut.Revision++
	l.cut.At = slices.Clone(l.cut.At)
	for shard, rev := range revs {
		l.cut.At[shard] = rev
	}
	close(l.changed)
	l.changed = make(chan struct{})
	return l.cut.Revision
}

// Now implements Order.
func (l *Ledger) Now(context.Context) (stages.Cut, error) { return l.Replayed(), nil }

// Replayed implements Order.
func (l *Ledger) Replayed() stages.Cut {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.cut
}

// Await implements Order.
func (l *Ledger) Await(ctx context.Context, shard int, rev int64) error {
	for {
		l.mu.Lock()
		covered, changed := l.cut.At[shard] >= rev, l.changed
		l.mu.Unlock()
		if covered {
			return nil
		}
		select {
		case <-changed:
		case <-ctx.Done():
			return context.Cause(ctx)
		}
	}
}

// Sweep compacts at a global revision and forgets those of a shard's revisions, as the
// order does with what no key refers to. The shard is left alone.
func (l *Ledger) Sweep(rev int64, shard int, revs ...int64) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.swept = rev
	for _, e := range l.entries {
		if slices.Contains(revs, e[shard]) {
			delete(e, shard)
		}
	}
	close(l.changed)
	l.changed = make(chan struct{})
}

// next is the index of the first entry with a revision of the shard above rev.
func (l *Ledger) next(shard int, rev int64) int {
	i := slices.IndexFunc(l.entries, func(e map[int]int64) bool { return e[shard] > rev })
	if i < 0 {
		return math.MaxInt
	}
	return i
}

// Revision implements Order.
func (l *Ledger) Revision(shard int, rev int64) int64 {
	l.mu.Lock()
	defer l.mu.Unlock()
	for i := len(l.entries) - 1; i >= 0; i-- {
		if own := l.entries[i][shard]; own > 0 && own <= rev {
			return int64(i) + 2
		}
	}
	return 1
}

// First implements Order.
func (l *Ledger) First(shard int, rev int64) int64 {
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, e := range l.entries[min(max(rev-2, 0), int64(len(l.entries))):] {
		if own := e[shard]; own > 0 {
			return own
		}
	}
	return l.cut.At[shard] + 1
}

// Complete implements Order.
func (l *Ledger) Complete(shard int, rev int64) int64 {
	l.mu.Lock()
	defer l.mu.Unlock()
	if i := l.next(shard, rev); rev < l.cut.At[shard] && i < len(l.entries) {
		return int64(i) + 1
	}
	return l.cut.Revision
}

// Compacted implements Order.
func (l *Ledger) Compacted() int64 {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.swept
}

// Header implements Order.
func (l *Ledger) Header(rev int64) *pb.ResponseHeader {
	return &pb.ResponseHeader{ClusterId: 1, MemberId: 1, RaftTerm: 1, Revision: rev}
}

// Arrange implements Order: a Ledger has the order of the shards.
func (l *Ledger) Arrange(int64, []*mvccpb.Event) {}
