package order_test

import (
	"fmt"
	"testing"

	"github.com/sourcegraph/conc"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
)

func TestRevisionsAreThoseOfOneEtcd(t *testing.T) {
	t.Parallel()
	r := newRig(t, 3)
	s1, s2 := r.sharder(nil), r.sharder(nil)
	for i, key := range []string{"c", "a", "b", "a"} {
		s := s1
		if i%2 == 1 {
			s = s2
		}
		if rev := r.Put(s, key, fmt.Sprint(i)); rev != int64(2+i) {
			t.Fatalf("write %d answered revision %d", i, rev)
		}
	}
	for _, s := range []*sharder{s1, s2} {
		if got, want := r.Range(s, "a", "z"), "a=3@3/5 b=2@4/4 c=0@2/2 at 5"; got != want {
			t.Fatalf("got %s, want %s", got, want)
		}
		for rev, want := range map[int64]string{
			1: "at 5", 2: "c=0@2/2 at 5", 3: "a=1@3/3 c=0@2/2 at 5", 4: "a=1@3/3 b=2@4/4 c=0@2/2 at 5",
			5: "a=3@3/5 b=2@4/4 c=0@2/2 at 5", 6: "rpc error: code = OutOfRange desc = etcdserver: mvcc: required revision is a future revision",
		} {
			if got := r.Range(s, "a", "z", func(q *pb.RangeRequest) { q.Revision = rev }); got != want {
				t.Fatalf("at %d: got %s, want %s", rev, got, want)
			}
		}
	}
}

func TestManyWritersGiveDenseRevisions(t *testing.T) {
	t.Parallel()
	r := newRig(t, 3)
	ss := []*sharder{r.sharder(nil), r.sharder(nil)}
	const writers, each = 16, 20
	revs := make([][]int64, writers)
	var wg conc.WaitGroup
	for w := range writers {
		wg.Go(func() {
			for i := range each {
				revs[w] = append(revs[w], r.Put(ss[w%2], fmt.Sprintf("%s%d", name(w%3), w), fmt.Sprint(i)))
			}
		})
	}
	wg.Wait()
	seen := map[int64]bool{}
	for w := range revs {
		for i, rev := range revs[w] {
			if seen[rev] || i > 0 && rev <= revs[w][i-1] || rev < 2 || rev > 1+writers*each {
				t.Fatalf("writer %d got revisions %v", w, revs[w])
			}
			seen[rev] = true
		}
	}
}
