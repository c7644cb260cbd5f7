package witness

import (
	"context"
	"fmt"
	"math/rand/v2"
	"testing"
	"time"

	"google.golang.org/protobuf/proto"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"

	"github.com/sharder/sharder/integration/history"
)

// Trial is clients and watchers on one logical etcd that is served by several servers,
// and what they saw. A test starts it, breaks and mends things while it goes on, and ends
// it with Judge; what still runs then, or when the test has failed before, ends with the
// test. It is not for use by several goroutines.
type Trial struct {
	// Log is every request of the clients, and of Ask.
	Log *history.Log

	t         testing.TB
	servers   []Server
	clients   *Clients
	rand      *rand.Rand
	followers []*Follower // the first has everything
	compacted int64       // everything below may have gone
}

// NewTrial starts clients, and watchers that are there from the beginning. The etcd is
// a fresh one.
func NewTrial(t testing.TB, seed uint64, servers ...Server) *Trial {
	return NewTrialOf(t, ClientOptions{Clients: 6, Pace: 12 * time.Millisecond, Patience: 2 * time.Second, Seed: seed}, servers...)
}

// NewTrialOf is NewTrial with other clients.
func NewTrialOf(t testing.TB, o ClientOptions, servers ...Server) *Trial {
	r := &Trial{t: t, servers: servers, Log: history.NewLog(), rand: rand.New(rand.NewPCG(o.Seed, 1))}
	for i, c := range []*pb.WatchCreateRequest{
		Watching("\x00", "\x00", 1), Watching("\x00", "\x00", 0), Watching("a2", "z3", 0), Watching("/h/", "/h0", 0), Watching("j1", "", 0), Watching("z", "{", 0),
	} {
		c.PrevKv = i%2 == 1
		r.follow(fmt.Sprint("early ", i), c)
	}
	r.clients = StartClients(r.Log, o, servers...)
	t.Cleanup(r.stop)
	return r
}

// stop ends everything; once more is harmless.
func (r *Trial) stop() {
	r.clients.Stop()
	for _, f := range r.followers {
		f.Stop()
	}
}

// Watching is a watch from a revision on, 0 for from now on.
func Watching(key, end string, start int64) *pb.WatchCreateRequest {
	return &pb.WatchCreateRequest{Key: []byte(key), RangeEnd: []byte(end), StartRevision: start}
}

// follow starts a watcher, at any of the servers.
func (r *Trial) follow(name string, c *pb.WatchCreateRequest) {
	servers := append([]Server(nil), r.servers...)
	r.rand.Shuffle(len(servers), func(i, j int) { servers[i], servers[j] = servers[j], servers[i] })
	r.Follow(name, c, servers...)
}

// Follow starts a watcher at servers of the test's choice.
func (r *Trial) Follow(name string, c *pb.WatchCreateRequest, servers ...Server) {
	r.followers = append(r.followers, Follow(name, c, servers...))
}

// Latecomers starts watchers of the past, the present and the near future.
func (r *Trial) Latecomers() {
	now := r.clients.Newest()
	for i, start := range []int64{r.compacted + 1 + r.rand.Int64N(max(1, now-r.compacted)), now + 1, now + 20} {
		c := Watching("\x00", "\x00", start)
		if i == 0 {
			c.Key, c.RangeEnd = []byte("h"), []byte("z2")
		}
		r.follow(fmt.Sprint("late, from ", start), c)
	}
}

// keptRevisions is how much history Compact leaves: more than a watcher misses while
// something is broken, since the first of them is to see everything.
const keptRevisions = 500

// Compact asks any server for a compaction, once there is enough history.
func (r *Trial) Compact() {
	if rev := r.clients.Newest() - keptRevisions; rev > r.compacted {
		r.compacted = rev
		s := r.servers[r.rand.IntN(len(r.servers))]
		r.Ask(s, 2*time.Second, &pb.CompactionRequest{Revision: rev, Physical: r.rand.IntN(2) == 0})
	}
}

// Wait returns when clients with a number of Ops have made them.
func (r *Trial) Wait() { r.clients.Wait() }

// Flowing waits until writes are acknowledged, by whichever server.
func (r *Trial) Flowing(when string) {
	r.t.Helper()
	r.FlowingBy(30, when)
}

// FlowingBy is Flowing for so many writes.
func (r *Trial) FlowingBy(writes int64, when string) {
	r.t.Helper()
	n := r.clients.Writes()
	Eventually(r.t, Bound, "writes "+when, func() bool { return r.clients.Writes() > n+writes })
}

// Ask makes one request more of a server, which is judged as those of the clients are.
func (r *Trial) Ask(s Server, patience time.Duration, req proto.Message) *history.Op {
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	return r.Log.Do(ctx, -1, s.Name, pb.NewKVClient(s.Conn), req)
}

// Serving waits until every server answers a linearizable read of everything.
func (r *Trial) Serving() {
	r.t.Helper()
	for _, s := range r.servers {
		Eventually(r.t, Bound, s.Name+" answers", func() bool {
			return r.Ask(s, time.Second, &pb.RangeRequest{Key: []byte{0}, RangeEnd: []byte{0}, CountOnly: true}).Err == nil
		})
	}
}

// Settle is Serving, and waits until what was under way when clients gave up has happened
// or never will.
func (r *Trial) Settle() {
	r.t.Helper()
	r.Serving()
	time.Sleep(time.Second)
}

// Judge ends the trial: clients stop, a last write is put, and everything up to it is
// held against the history that the first watcher has from the beginning, and gives that.
// Every server must tell the same, as far back as it can.
func (r *Trial) Judge() *history.Timeline {
	r.t.Helper()
	last := r.last()
	for _, s := range r.servers {
		r.Follow("full, "+s.Name, Watching("\x00", "\x00", r.compacted+1), s)
	}
	var watches []*history.Watch
	for _, f := range r.followers {
		watches = append(watches, r.all(f, last))
	}
	timeline, wrong := history.NewTimeline(watches[0].Events())
	ops := r.Log.Ops()
	wrong = append(wrong, history.Check(ops, timeline)...)
	broken, promises := 0, 0
	for _, w := range watches {
		wrong = append(wrong, history.CheckWatch(w, timeline, true)...)
		broken += len(w.Segments) - 1
		promises += w.Progress()
	}
	r.t.Logf("%d requests, %d of them answered writes, %d revisions, the first %d compacted; %d watchers, %d broken streams, %d promises",
		len(ops), r.clients.Writes(), last, r.compacted, len(watches), broken, promises)
	if promises < len(watches) {
		r.t.Errorf("only %d answers to requests for progress", promises)
	}
	for i, v := range wrong {
		if i == 20 {
			r.t.Errorf("and %d more", len(wrong)-i)
			break
		}
		r.t.Error(v)
	}
	return timeline
}

// last stops the clients and makes one more write. Its revision is the last one.
func (r *Trial) last() (rev int64) {
	r.t.Helper()
	r.clients.Stop()
	s := r.servers[0]
	Eventually(r.t, Bound, "a last write", func() bool {
		o := r.Ask(s, 2*time.Second, &pb.PutRequest{Key: []byte("a9"), Value: fmt.Append(nil, "last ", time.Now())})
		if o.Err != nil {
			return false
		}
		rev = o.Reply.(*pb.PutResponse).Header.Revision
		return true
	})
	return rev
}

// all waits until a watcher has everything up to a revision, and gives that.
func (r *Trial) all(f *Follower, rev int64) *history.Watch {
	r.t.Helper()
	Eventually(r.t, Bound, "a watcher has everything", func() bool { return f.Reached() >= rev })
	return f.Stop().Until(rev)
}
