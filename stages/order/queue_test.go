package order

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
)

// jobOn is a job that puts keys, each on the shard that its first letter names. bytes of
// its request are 100.
func jobOn(keys ...string) *job {
	txn := &pb.TxnRequest{}
	j := &job{bytes: 100, done: make(chan ending, 1)}
	for _, k := range keys {
		txn.Success = append(txn.Success, putOp(k, nil))
		if n := int(k[0] - 'a'); !slices.Contains(j.shards, n) {
			j.shards = append(j.shards, n)
		}
	}
	slices.Sort(j.shards)
	j.touched, j.item.Txn = touches(txn), txn
	return j
}

// batchesOf takes all batches that can be taken now, in words: keys of a job are joined by
// "+", jobs by a space, batches by "; ".
func batchesOf(q *queue) string {
	var out []string
	for jobs := q.take(); jobs != nil; jobs = q.take() {
		var names []string
		for _, j := range jobs {
			names = append(names, nameOf(j))
		}
		out = append(out, strings.Join(names, " "))
	}
	return strings.Join(out, "; ")
}

func nameOf(j *job) string {
	var keys []string
	for _, op := range j.item.Txn.Success {
		keys = append(keys, string(op.GetRequestPut().Key))
	}
	return strings.Join(keys, "+")
}

func queueOf(most int, jobs ...string) *queue {
	q := newQueue(most)
	for _, keys := range jobs {
		q.put(jobOn(strings.Split(keys, "+")...))
	}
	return &q
}

func TestBatchesAreFormedOfWhatSharesShardsAndNoKeys(t *testing.T) {
	for _, c := range []struct {
		name string
		most int
		jobs string
		want string
	}{
		{"alone", 9, "a1+b1", "a1+b1"},
		{"the same shards, other keys", 9, "a1+b1 a2+b2 a3+b3", "a1+b1 a2+b2 a3+b3"},
		{"the same key", 9, "a1+b1 a1+b2", "a1+b1"},
		{"no common shard", 9, "a1+b1 c1+d1", "a1+b1; c1+d1"},
		{"connected by one that came later", 9, "a1+b1 c1+d1 b2+c2", "a1+b1 b2+c2 c1+d1"},
		{"not more than so many", 2, "a1+b1 a2+b2 a3+b3", "a1+b1 a2+b2"},
		{"one that conflicts does not hold up those behind it", 9, "a1+b1 a1+b2 a3+b3", "a1+b1 a3+b3"},
	} {
		if got := batchesOf(queueOf(c.most, strings.Fields(c.jobs)...)); got != c.want {
			t.Errorf("%s: %q, want %q", c.name, got, c.want)
		}
	}
}

func TestABatchWaitsForItsShards(t *testing.T) {
	q := queueOf(9, "a1+b1")
	if got := batchesOf(q); got != "a1+b1" {
		t.Fatal(got)
	}
	for _, keys := range []string{"b2+c2", "c3+d3", "d4+e4"} {
		q.put(jobOn(strings.Split(keys, "+")...))
	}
	// c3+d3 must not overtake b2+c2, or a flow of such would keep it waiting for ever; and
	// d4+e4 not c3+d3.
	if got := batchesOf(q); got != "" {
		t.Fatalf("%q has overtaken what waits for shard b", got)
	}
	q.free([]int{0, 1})
	if got, want := batchesOf(q), "b2+c2 c3+d3 d4+e4"; got != want {
		t.Fatalf("%q, want %q", got, want)
	}
}

func TestABatchDoesNotGrowOntoAShardThatAnOlderJobWaitsFor(t *testing.T) {
	q := queueOf(9, "f1+g1")
	batchesOf(q)
	for _, keys := range []string{"e1+f2", "a1+b1", "a2+e2"} {
		q.put(jobOn(strings.Split(keys, "+")...))
	}
	if got := batchesOf(q); got != "a1+b1" {
		t.Fatalf("%q, and e1+f2 has waited for shard e longer", got)
	}
}

func TestAJobIsWithdrawnUnlessItsBatchHasBegun(t *testing.T) {
	q := newQueue(9)
	first, second := jobOn("a1", "b1"), jobOn("a1", "b1")
	q.put(first)
	q.put(second)
	q.take()
	if q.withdraw(first) || !q.withdraw(second) || q.withdraw(second) {
		t.Fatal("only what waits can be withdrawn, and once")
	}
	q.free([]int{0, 1})
	if q.take() != nil {
		t.Fatal("what was withdrawn is begun")
	}
}

func TestLargeRequestsDoNotShareABatch(t *testing.T) {
	q := queueOf(9)
	for i := range 3 {
		j := jobOn(fmt.Sprint("a", i), fmt.Sprint("b", i))
		j.bytes = batchBytes / 2
		q.put(j)
	}
	large := jobOn("a9", "c9")
	large.bytes = 2 * batchBytes
	q.put(large)
	if got := batchesOf(q); got != "a0+b0 a1+b1" {
		t.Fatal(got)
	}
	q.free([]int{0, 1})
	if got := batchesOf(q); got != "a2+b2" {
		t.Fatal(got)
	}
	q.free([]int{0, 1})
	if got := batchesOf(q); got != "a9+c9" {
		t.Fatal(got)
	}
}

// Whatever is asked for, and in whichever order batches end: a job that waits is overtaken
// by none that came after it and shares a shard that its batch would need.
func TestNobodyStarves(t *testing.T) {
	for seed := range uint64(200) {
		dice := rand.New(rand.NewPCG(seed, 1))
		q := newQueue(1 + dice.IntN(4))
		var running [][]int
		waited := map[*job]int{} // batches begun while it was the oldest
		for step := range 400 {
			if step < 300 {
				from := dice.IntN(6)
				keys := []string{fmt.Sprintf("%c%d", 'a'+from, dice.IntN(3)), fmt.Sprintf("%c%d", 'a'+(from+1+dice.IntN(5))%6, dice.IntN(3))}
				q.put(jobOn(keys...))
			}
			var oldest *job
			if len(q.waiting) > 0 {
				oldest = q.waiting[0]
			}
			for jobs := q.take(); jobs != nil; jobs = q.take() {
				shards := map[int]bool{}
				for i, j := range jobs {
					for _, n := range j.shards {
						shards[n] = true
					}
					for _, other := range jobs[:i] {
						if other.touched.conflict(j.touched) {
							t.Fatalf("seed %d: %s and %s in one batch", seed, nameOf(other), nameOf(j))
						}
					}
				}
				var list []int
				for n := range shards {
					for _, have := range running {
						if slices.Contains(have, n) {
							t.Fatalf("seed %d: two batches on shard %d", seed, n)
						}
					}
					list = append(list, n)
				}
				running = append(running, list)
				if oldest != nil && !slices.Contains(jobs, oldest) && slices.ContainsFunc(oldest.shards, func(n int) bool { return shards[n] }) {
					t.Fatalf("seed %d: %s is the oldest and was overtaken on its shards", seed, nameOf(oldest))
				}
			}
			if oldest != nil && slices.Contains(q.waiting, oldest) {
				if waited[oldest]++; waited[oldest] > 40 {
					t.Fatalf("seed %d: %s waits since long", seed, nameOf(oldest))
				}
			}
			if len(running) > 0 {
				i := dice.IntN(len(running))
				q.free(running[i])
				running = slices.Delete(running, i, i+1)
			}
		}
		if len(q.waiting) > 0 && len(running) == 0 {
			t.Fatalf("seed %d: %d wait for nothing", seed, len(q.waiting))
		}
	}
}
