package backend

import (
	"context"
	"fmt"
	"testing"
	"time"

	"github.com/sourcegraph/conc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"

	"github.com/sharder/sharder/integration/leaks"
)

func TestMain(m *testing.M) { leaks.Main(m) }

// open runs a cluster until the test ends, with quick probes unless told otherwise.
func open(t testing.TB, o Options) *Cluster {
	t.Helper()
	c := closing(t, o)
	run(t, c)
	return c
}

// serving is open for a cluster that answers, once it does: the first probe of a member is its only one,
// and one that gets no answer in time fails every call before the next.
func serving(t testing.TB, o Options) *Cluster {
	t.Helper()
	c := open(t, o)
	eventually(t, 30*time.Second, "a member answers", func() bool {
		for _, s := range c.roster.Load().seats {
			if s.now().health == down {
				s.hurry() // the interval may be long
			}
		}
		return c.Healthy()
	})
	return c
}

// closing opens a cluster that nobody probes yet, and closes it when the test ends.
func closing(t testing.TB, o Options) *Cluster {
	t.Helper()
	if o.Name == "" {
		o.Name = "a"
	}
	if o.HealthInterval == 0 {
		o.HealthInterval = 200 * time.Millisecond
	}
	c, err := Open(o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = c.Close() })
	return c
}

// settle probes a cluster, one of closing's, until ok holds, and no longer: from then on nothing is
// another way than the test has seen it, but for what calls find out.
func settle(t testing.TB, c *Cluster, what string, ok func() bool) {
	t.Helper()
	for end := time.Now().Add(time.Minute); ; {
		ctx, cancel := context.WithCancel(context.Background())
		var wg conc.WaitGroup
		wg.Go(func() { _ = c.Run(ctx) })
		for !ok() && time.Now().Before(end) {
			time.Sleep(10 * time.Millisecond)
		}
		cancel()
		wg.Wait()
		if ok() {
			return
		}
		if time.Now().After(end) {
			t.Fatalf("not within a minute: %s", what)
		}
	}
}

// allAble reports whether all members answer and can be expected to serve everything.
func allAble(c *Cluster) bool {
	for _, s := range c.roster.Load().seats {
		if now := s.now(); now.health != up || !now.able() {
			return false
		}
	}
	return true
}

// run probes until the test ends.
func run(t testing.TB, c *Cluster) {
	ctx, cancel := context.WithCancel(context.Background())
	var wg conc.WaitGroup
	wg.Go(func() { _ = c.Run(ctx) })
	t.Cleanup(func() {
		cancel()
		wg.Wait()
	})
}

// within gives a context for one step of a test.
func within(t testing.TB, d time.Duration) context.Context {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), d)
	t.Cleanup(cancel)
	return ctx
}

// eventually polls until ok holds.
func eventually(t testing.TB, d time.Duration, what string, ok func() bool) {
	t.Helper()
	for end := time.Now().Add(d); time.Now().Before(end); time.Sleep(10 * time.Millisecond) {
		if ok() {
			return
		}
	}
	t.Fatalf("not within %v: %s", d, what)
}

// put and get are the two calls nearly every test makes.
func put(ctx context.Context, c *Cluster, key, value string) error {
	_, err := pb.NewKVClient(c).Put(ctx, &pb.PutRequest{Key: []byte(key), Value: []byte(value)})
	return err
}

func get(ctx context.Context, c *Cluster, key string) (string, error) {
	r, err := pb.NewKVClient(c).Range(ctx, &pb.RangeRequest{Key: []byte(key)})
	if err != nil {
		return "", err
	}
	if len(r.Kvs) == 0 {
		return "", fmt.Errorf("no key %q", key)
	}
	return string(r.Kvs[0].Value), nil
}

// wantStatus fails unless err carries exactly this code and text.
func wantStatus(t testing.TB, err error, code codes.Code, text string) {
	t.Helper()
	s, ok := status.FromError(err)
	if !ok || s.Code() != code || s.Message() != text {
		t.Fatalf("got %v\nwant %v: %s", err, code, text)
	}
}
