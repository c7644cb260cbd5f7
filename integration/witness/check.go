package witness

import (
	"context"
	"fmt"
	"strings"
	"testing"
	"time"

	"google.golang.org/grpc"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
)

// Bound is how long anything may take that is not made to wait.
const Bound = 60 * time.Second

// Eventually polls until something is so, and fails the test when the bound passes.
func Eventually(t testing.TB, bound time.Duration, what string, ok func() bool) {
	t.Helper()
	deadline := time.Now().Add(bound)
	for !ok() {
		if time.Now().After(deadline) {
			t.Fatalf("not so after %v: %s", bound, what)
		}
		time.Sleep(20 * time.Millisecond)
	}
}

// MarkEnd puts a last key on each shard and waits until every watch has it. Nothing
// may write meanwhile.
func MarkEnd(t testing.TB, conn *grpc.ClientConn, recorders ...*Recorder) {
	t.Helper()
	kv := pb.NewKVClient(conn)
	for _, prefix := range Prefixes {
		Eventually(t, Bound, "a last put on "+prefix, func() bool {
			ctx, cancel := context.WithTimeout(context.Background(), Bound/10)
			defer cancel()
			_, err := kv.Put(ctx, &pb.PutRequest{Key: []byte(prefix + mark), Value: []byte("x")})
			return err == nil
		})
	}
	for _, r := range recorders {
		for _, prefix := range Prefixes {
			if r.covers(prefix) {
				Eventually(t, Bound, "watch "+r.name+" sees the last put on "+prefix, func() bool { return r.Saw(t, prefix+mark) })
			}
		}
	}
}

// mark ends the last key of each shard.
const mark = "-end"

// CheckHistories compares what every watch saw with the shards' own histories, and
// those with what was acknowledged. The connections lead straight to the shards.
func CheckHistories(t testing.TB, shards []*grpc.ClientConn, l *Load, recorders ...*Recorder) {
	t.Helper()
	for i, prefix := range Prefixes {
		truth := remembered(t, shards[i], i)
		there := map[string]bool{}
		for _, ev := range truth {
			there[ev.key] = true
		}
		l.Shards[i].acked.Range(func(key, _ any) bool {
			if !there[key.(string)] {
				t.Errorf("shard %d: %s was acknowledged and is lost", i, key)
			}
			return true
		})
		for _, r := range recorders {
			if r.covers(prefix) {
				if diff := compareEvents(truth, r.of(i)); diff != "" {
					t.Errorf("watch %s, shard %d: %s", r.name, i, diff)
				}
			}
		}
	}
}

// remembered is what a shard itself remembers, up to the mark.
func remembered(t testing.TB, conn *grpc.ClientConn, shard int) []event {
	t.Helper()
	r := Record(t, conn, "truth", "\x01", "\x00", 1)
	Eventually(t, Bound, "the history of the shard", func() bool { return r.Saw(t, Prefixes[shard]+mark) })
	r.Stop()
	return r.of(shard)
}

// compareEvents tells how what a watch saw differs from a shard's history, "" if it
// doesn't.
func compareEvents(truth, seen []event) string {
	for i := 0; i < len(truth) && i < len(seen); i++ {
		if truth[i] != seen[i] {
			return fmt.Sprintf("event %d of the shard is %+v, seen was %+v", i, truth[i], seen[i])
		}
	}
	// What comes behind the mark may still be under way to one of them.
	if n, m := untilEnd(truth), untilEnd(seen); n != m {
		return fmt.Sprintf("%d events up to the mark, %d seen", n, m)
	}
	return ""
}

// untilEnd counts events up to the end mark.
func untilEnd(events []event) int {
	for i, ev := range events {
		if strings.HasSuffix(ev.key, mark) {
			return i + 1
		}
	}
	return len(events)
}
