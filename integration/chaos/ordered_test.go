package chaos

import (
	"context"
	"fmt"
	"math/rand/v2"
	"testing"
	"time"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"

	"github.com/sharder/sharder/integration/cable"
	"github.com/sharder/sharder/integration/etcdproc"
	"github.com/sharder/sharder/integration/harness"
	"github.com/sharder/sharder/integration/history"
	"github.com/sharder/sharder/integration/witness"
)

// ordered is three shards with one revision over all of them: shards and order cluster
// are processes, and so are the two sharders, each of which reaches every member through
// a cable of its own.
type ordered struct {
	t        *testing.T
	clusters []*etcdproc.Cluster // the shards, then the order cluster
	cables   [2][]*cable.Cable   // by sharder: to the members of all clusters, in order
	sharders [2]*harness.Sharder
	servers  []witness.Server
}

// startOrdered runs clusters of so many members: three shards, then the order cluster.
func startOrdered(t *testing.T, members ...int) *ordered {
	t.Helper()
	f := &ordered{t: t}
	for _, n := range members {
		f.clusters = append(f.clusters, etcdproc.Start(t, n, etcdproc.WithArgs(harness.ShardFlags()...)))
	}
	for i := range f.sharders {
		var endpoints [][]string
		for _, c := range f.clusters {
			var near []string
			for m := range c.Len() {
				line := cable.New(t, hostPort(c.Endpoint(m)))
				f.cables[i] = append(f.cables[i], line)
				near = append(near, line.Addr)
			}
			endpoints = append(endpoints, near)
		}
		f.sharders[i] = harness.Start(t, harness.Three(endpoints[:3]...).Ordered(endpoints[3]...))
		f.servers = append(f.servers, witness.Dial(t, fmt.Sprint("sharder ", i), f.sharders[i].Endpoint))
	}
	return f
}

// orderCluster is the one that holds the order.
func (f *ordered) orderCluster() *etcdproc.Cluster { return f.clusters[3] }

// linesTo are the cables from a sharder to a cluster.
func (f *ordered) linesTo(sharder, cluster int) []*cable.Cable {
	first := 0
	for _, c := range f.clusters[:cluster] {
		first += c.Len()
	}
	return f.cables[sharder][first : first+f.clusters[cluster].Len()]
}

// restart kills a sharder and starts it again.
func (f *ordered) restart(i int) {
	f.t.Helper()
	f.sharders[i].Kill()
	f.sharders[i].Again()
}

// settled waits until every sharder answers linearizable reads, and what was under way
// when clients gave up has happened or never will.
func (f *ordered) settled() {
	f.t.Helper()
	for _, s := range f.servers {
		witness.Eventually(f.t, bound, s.Name+" answers", func() bool {
			ctx, cancel := context.WithTimeout(context.Background(), time.Second)
			defer cancel()
			_, err := pb.NewKVClient(s.Conn).Range(ctx, &pb.RangeRequest{Key: []byte{0}, RangeEnd: []byte{0}, CountOnly: true})
			return err == nil
		})
	}
	time.Sleep(time.Second)
}

// trial is clients and watchers on one logical etcd, and what they saw.
type trial struct {
	t         *testing.T
	servers   []witness.Server
	log       *history.Log
	clients   *witness.Clients
	rand      *rand.Rand
	followers []*witness.Follower
}

// newTrial starts clients, and watchers that were there from the beginning.
func newTrial(t *testing.T, seed uint64, servers ...witness.Server) *trial {
	return newTrialOf(t, witness.ClientOptions{Clients: 6, Pace: 12 * time.Millisecond, Patience: 2 * time.Second, Seed: seed}, servers...)
}

// newTrialOf is newTrial with other clients.
func newTrialOf(t *testing.T, o witness.ClientOptions, servers ...witness.Server) *trial {
	r := &trial{t: t, servers: servers, log: history.NewLog(), rand: rand.New(rand.NewPCG(o.Seed, 1))}
	for i, c := range []*pb.WatchCreateRequest{
		watching("\x00", "\x00", 1), watching("\x00", "\x00", 0), watching("a2", "z3", 0), watching("/h/", "/h0", 0), watching("j1", "", 0), watching("z", "{", 0),
	} {
		c.PrevKv = i%2 == 1
		r.follow(fmt.Sprint("early ", i), c)
	}
	r.clients = witness.StartClients(r.log, o, servers...)
	return r
}

func watching(key, end string, start int64) *pb.WatchCreateRequest {
	return &pb.WatchCreateRequest{Key: []byte(key), RangeEnd: []byte(end), StartRevision: start}
}

// follow starts a watcher, at any of the servers.
func (r *trial) follow(name string, c *pb.WatchCreateRequest) {
	servers := append([]witness.Server(nil), r.servers...)
	r.rand.Shuffle(len(servers), func(i, j int) { servers[i], servers[j] = servers[j], servers[i] })
	r.followers = append(r.followers, witness.Follow(name, c, servers...))
}

// latecomers are watchers of the past, the present and the near future.
func (r *trial) latecomers() {
	now := r.clients.Newest()
	for i, start := range []int64{1 + r.rand.Int64N(max(1, now)), now + 1, now + 20} {
		c := watching("\x00", "\x00", start)
		if i == 0 {
			c.Key, c.RangeEnd = []byte("h"), []byte("z2")
		}
		r.follow(fmt.Sprint("late, from ", start), c)
	}
}

// flowing waits until writes are acknowledged again.
func (r *trial) flowing(after string) {
	r.t.Helper()
	n := r.clients.Writes()
	witness.Eventually(r.t, bound, "writes after "+after, func() bool { return r.clients.Writes() > n+30 })
}

// judge ends the trial: clients stop, a last write is put, and everything up to it is
// held against the history that both servers tell from the beginning, which it gives.
func (r *trial) judge() *history.Timeline {
	r.t.Helper()
	last := r.last()
	var full []*history.Watch
	for _, s := range r.servers {
		w := r.all(witness.Follow("full, "+s.Name, watching("\x00", "\x00", 1), s), last)
		full = append(full, w)
	}
	timeline, wrong := history.NewTimeline(full[0].Events())
	ops := r.log.Ops()
	wrong = append(wrong, history.Check(ops, timeline)...)
	for _, f := range r.followers {
		full = append(full, r.all(f, last))
	}
	broken := 0
	for _, w := range full {
		wrong = append(wrong, history.CheckWatch(w, timeline, true)...)
		broken += len(w.Segments) - 1
	}
	r.t.Logf("%d requests, %d of them answered writes, %d revisions; %d watchers, %d broken streams", len(ops), r.clients.Writes(), last, len(full), broken)
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
func (r *trial) last() (rev int64) {
	r.t.Helper()
	r.clients.Stop()
	s := r.servers[0]
	witness.Eventually(r.t, bound, "a last write", func() bool {
		ctx, cancel := context.WithTimeout(context.Background(), 2*time.Second)
		defer cancel()
		o := r.log.Do(ctx, -1, s.Name, pb.NewKVClient(s.Conn), &pb.PutRequest{Key: []byte("a9"), Value: fmt.Append(nil, "last ", time.Now())})
		if o.Err != nil {
			return false
		}
		rev = o.Reply.(*pb.PutResponse).Header.Revision
		return true
	})
	return rev
}

// all waits until a watcher has everything up to a revision, and gives that.
func (r *trial) all(f *witness.Follower, rev int64) *history.Watch {
	r.t.Helper()
	witness.Eventually(r.t, bound, "a watcher has everything", func() bool { return f.Reached() >= rev })
	return f.Stop().Until(rev)
}
