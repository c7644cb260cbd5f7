package history

import (
	"fmt"
	"sort"
	"time"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
)

// Stale is a serializable read that is older than a bound allows.
const Stale = "stale"

// CheckFresh wants every answered serializable read of one key to know of each change of that
// key that was acknowledged a bound or more before the read began. How old such a read may be
// the API doesn't say; whoever serves it from memory has a bound.
func CheckFresh(ops []*Op, t *Timeline, bound time.Duration) (wrong []Violation, checked int) {
	acked := acknowledged(ops)
	for _, o := range ops {
		r, ok := o.Request.(*pb.RangeRequest)
		if !ok || o.Err != nil || !r.Serializable || len(r.RangeEnd) > 0 || r.Revision != 0 {
			continue
		}
		checked++
		known := acked.before(o.Call - bound)
		if kv := t.at(known).get(string(r.Key)); kv != nil && kv.ModRevision > o.revision() {
			wrong = append(wrong, Violation{Stale, fmt.Sprintf("%s answered at revision %d for %q to a read that began at %v, which was changed at %d, acknowledged at %v, more than %v before",
				o.Through, o.revision(), r.Key, o.Call, kv.ModRevision, acked.of(kv.ModRevision), bound)})
		}
	}
	return wrong, checked
}

// acks are acknowledged writes by the time of their acknowledgement, with the newest revision by then.
type acks []struct {
	at  time.Duration
	rev int64
}

func acknowledged(ops []*Op) acks {
	var all acks
	for _, o := range ops {
		if o.writes() && o.Err == nil {
			all = append(all, struct {
				at  time.Duration
				rev int64
			}{o.Return, o.revision()})
		}
	}
	sort.Slice(all, func(i, j int) bool { return all[i].at < all[j].at })
	for i := 1; i < len(all); i++ {
		all[i].rev = max(all[i].rev, all[i-1].rev)
	}
	return all
}

// before is the newest revision that was acknowledged by a time, 1 if none was.
func (a acks) before(at time.Duration) int64 {
	n := sort.Search(len(a), func(i int) bool { return a[i].at > at })
	if n == 0 {
		return 1
	}
	return a[n-1].rev
}

// of is when a revision was known to be acknowledged; there is one.
func (a acks) of(rev int64) time.Duration {
	return a[sort.Search(len(a), func(i int) bool { return a[i].rev >= rev })].at
}
