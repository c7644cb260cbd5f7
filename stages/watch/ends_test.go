package watch_test

import (
	"context"
	"fmt"
	"math/rand/v2"
	"runtime"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/sourcegraph/conc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/sharder/sharder/integration/etcdtest"
	"github.com/sharder/sharder/stages/watch"
	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	clientv3 "go.etcd.io/etcd/client/v3"
)

// gauge reads one of the metrics of the etcds in this process.
func gauge(t testing.TB, name string) float64 {
	t.Helper()
	all, err := prometheus.DefaultGatherer.Gather()
	if err != nil {
		t.Fatal(err)
	}
	for _, m := range all {
		if m.GetName() == name {
			return m.Metric[0].GetGauge().GetValue()
		}
	}
	t.Fatalf("no metric %s", name)
	return 0
}

// grpc-proxy leaks the goroutines of streams that end at a bad moment (section 2.3 j).
func TestNothingStaysOfThousandsOfWatchesAndStreams(t *testing.T) {
	r := newRig(t, 1, func(o *watch.Options) {
		o.SetIdle(50 * time.Millisecond)
		o.ProgressInterval = 20 * time.Millisecond
		o.HistoryBytes = 4 << 10
	})
	load(t, r.etcds[0].Client(), 300, 300)
	watchers := gauge(t, "etcd_debugging_mvcc_watcher_total")
	stop := writer(t, r.etcds[0], "k", time.Millisecond)
	var wg conc.WaitGroup
	for range 8 {
		conn := etcdtest.Conn(t, r.endpoint)
		wg.Go(func() {
			for range 40 {
				restless(pb.NewWatchClient(conn), func() (key, end string) { return "k", fmt.Sprintf("k%d", rand.IntN(9)) })
			}
		})
	}
	wg.Wait()
	stop()
	eventually(t, "nothing is held", func() bool {
		st := r.server.Stats()
		return st.Streams == 0 && st.Watches == 0 && st.Upstream["a"] == 0 && st.History == 0 && r.server.Trunks() == 0
	})
	eventually(t, "the shard has no watcher more than before", func() bool {
		return gauge(t, "etcd_debugging_mvcc_watcher_total") <= watchers
	})
	eventually(t, "no goroutine but Run's is left", func() bool { return goroutines() == 1 })
}

func TestNothingStaysOfMergedWatchesAndTheirStreams(t *testing.T) {
	m := newRealm(t, 1, func(o *watch.Options) {
		o.SetIdle(50 * time.Millisecond)
		o.ProgressInterval = 20 * time.Millisecond
		o.HistoryBytes, o.Queue, o.QueueBytes = 4<<10, 4, 4<<10
	})
	m.spread(300, 300)
	stop := m.storm(time.Millisecond)
	var wg conc.WaitGroup
	for range 6 {
		conn := etcdtest.Conn(t, m.rigs[0].endpoint)
		wg.Go(func() {
			for range 25 {
				restless(pb.NewWatchClient(conn), func() (key, end string) { return randomRange(3) })
			}
		})
	}
	time.Sleep(200 * time.Millisecond)
	m.rigs[0].cables[1].Hold() // merges are full and wait
	time.Sleep(200 * time.Millisecond)
	m.rigs[0].cables[1].Release()
	wg.Wait()
	stop()
	server := m.rigs[0].server
	eventually(t, "nothing is held", func() bool {
		st := server.Stats()
		_, bytes := server.Waiting()
		return st.Streams == 0 && st.Watches == 0 && st.History == 0 && bytes == 0 && server.Trunks() == 0
	})
	eventually(t, "no goroutine but Run's is left", func() bool { return goroutines() == 1 })
}

// goroutines counts those that are at work in this package.
func goroutines() int {
	buf := make([]byte, 4<<20)
	n := 0
	for _, g := range strings.Split(string(buf[:runtime.Stack(buf, true)]), "\n\n") {
		if strings.Contains(g, "sharder/stages/watch.(*") {
			n++
		}
	}
	return n
}

// restless opens a stream, does some twenty random things on it and ends it in a random
// way at a random moment, without a look at what the server says.
func restless(c pb.WatchClient, somewhere func() (key, end string)) {
	ctx, cancel := context.WithTimeout(context.Background(), time.Duration(1+rand.IntN(40))*time.Millisecond)
	defer cancel()
	s, err := c.Watch(ctx)
	if err != nil {
		return // out of time
	}
	for range rand.IntN(20) {
		switch rand.IntN(6) {
		case 0:
			_ = s.Send(&pb.WatchRequest{RequestUnion: &pb.WatchRequest_CancelRequest{CancelRequest: &pb.WatchCancelRequest{WatchId: rand.Int64N(10)}}})
		case 1:
			_ = s.Send(&pb.WatchRequest{RequestUnion: &pb.WatchRequest_ProgressRequest{ProgressRequest: &pb.WatchProgressRequest{}}})
		case 2:
			_ = s.Send(&pb.WatchRequest{})
		default:
			key, end := somewhere()
			_ = s.Send(&pb.WatchRequest{RequestUnion: &pb.WatchRequest_CreateRequest{CreateRequest: &pb.WatchCreateRequest{
				Key: []byte(key), RangeEnd: []byte(end), StartRevision: rand.Int64N(300), PrevKv: rand.IntN(2) == 0,
			}}})
		}
	}
	for range rand.IntN(10) {
		if _, err := s.Recv(); err != nil {
			return
		}
		if rand.IntN(20) == 0 {
			_ = s.CloseSend()
		}
	}
}

func TestAStopEndsStreamsWithEtcdsOwnError(t *testing.T) {
	t.Parallel()
	r := newRig(t, 1, nil)
	reading, stuck := newFeed(t, t.Context(), r.endpoint), stalled(t, r, 3)
	reading.add(allOfK)
	load(t, r.etcds[0].Client(), 300, 1000) // the stuck one's sender sits in the stream
	r.server.Stop()
	deadline := time.After(time.Minute)
	for open := true; open; {
		select {
		case _, open = <-reading.ch:
		case <-deadline:
			t.Fatal("the stream goes on")
		}
	}
	if s := status.Convert(reading.err); s.Code() != codes.Unavailable || s.Message() != "etcdserver: server stopped" {
		t.Fatal(reading.err)
	}
	eventually(t, "the stuck stream's handler returned", func() bool { return r.server.Stats().Streams == 0 })
	stuck.resume()
	refused, err := pb.NewWatchClient(etcdtest.Conn(t, r.endpoint)).Watch(t.Context())
	if err == nil {
		_, err = refused.Recv()
	}
	if s := status.Convert(err); s.Code() != codes.Unavailable || s.Message() != "etcdserver: server stopped" {
		t.Fatal(err)
	}
}

func TestClientsGoToAnotherServerAndLoseNothing(t *testing.T) {
	t.Parallel()
	r := newRig(t, 1, nil)
	other := &rig{etcds: r.etcds, shards: r.shards, server: watch.New(watch.Options{Table: r.table})}
	other.serve(t)
	var watches []clientv3.WatchChan
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	for range 10 {
		c := etcdtest.Client(t, r.endpoint, other.endpoint)
		watches = append(watches, c.Watch(ctx, "k", clientv3.WithPrefix(), clientv3.WithCreatedNotify()))
	}
	for _, w := range watches {
		<-w
	}
	stop := writer(t, r.etcds[0], "k", time.Millisecond)
	time.Sleep(200 * time.Millisecond)
	r.stop()
	time.Sleep(200 * time.Millisecond)
	last := stop()
	for i, w := range watches {
		want := int64(2)
		for m := range w {
			if m.Err() != nil {
				t.Fatal(m.Err())
			}
			for _, ev := range m.Events {
				if ev.Kv.ModRevision != want {
					t.Fatalf("client %d: revision %d, want %d", i, ev.Kv.ModRevision, want)
				}
				want++
			}
			if want > last {
				break
			}
		}
		if want <= last {
			t.Fatalf("client %d: the watch ended before revision %d", i, want)
		}
	}
}
