package scale

import (
	"context"
	"sync"
	"time"

	"github.com/sharder/sharder/stages/order"
)

// costs are what things take at an order cluster.
type costs struct {
	network  time.Duration // one way between any two machines
	disk     time.Duration // to have a batch of proposals durable on a majority
	cpus     int           // of the member that all sharders talk to
	append   time.Duration // CPU of an append, without telling anybody
	position time.Duration // CPU of a read of the position
	deliver  time.Duration // CPU of telling one sharder of one entry
}

// measured are the costs of etcd in docs/performance.md: CPU at etcd per put (put-N) and get
// (get-N), and of telling one sharder a 32nd of what an entry costs more than a put
// (log-32); a network and a disk as in one region of a cloud.
var measured = costs{
	network: 100 * time.Microsecond, disk: time.Millisecond, cpus: 2,
	append: 112 * time.Microsecond, position: 80 * time.Microsecond, deliver: 4750 * time.Nanosecond,
}

// cluster is the order cluster as far as time is concerned: one log, and one member that
// does all the work, on CPUs that take one piece of it at a time, in the order in which
// it comes.
type cluster struct {
	costs

	mu      sync.Mutex
	records []order.Record
	grown   chan struct{} // closed and replaced with every record
	free    []time.Time   // by CPU, when it has nothing to do any more
	running time.Time     // when the batch that is being written is durable
	next    time.Time     // likewise the batch that gathers meanwhile

	busy      time.Duration // CPU time so far
	positions int           // reads so far
}

func newCluster(c costs) *cluster {
	return &cluster{costs: c, grown: make(chan struct{}), free: make([]time.Time, c.cpus)}
}

// work takes CPU time: it gives when a piece of work that comes now is done. mu is held.
func (c *cluster) work(d time.Duration) time.Time {
	first := 0
	for i := range c.free {
		if c.free[i].Before(c.free[first]) {
			first = i
		}
	}
	if now := time.Now(); c.free[first].Before(now) {
		c.free[first] = now
	}
	c.free[first] = c.free[first].Add(d)
	c.busy += d
	return c.free[first]
}

// durable gives when a proposal made at a time is durable: with the batch that begins
// then, or with the one after the batch that is being written. mu is held.
func (c *cluster) durable(at time.Time) time.Time {
	if !at.Before(c.running) {
		c.running = c.next // it has begun meanwhile
	}
	if at.Before(c.running) {
		c.next = c.running.Add(c.disk)
		return c.next
	}
	c.running = at.Add(c.disk)
	c.next = c.running
	return c.running
}

// journal is one sharder's way to the cluster.
type journal struct {
	*cluster
	order.Records // nil: nothing here is over several shards
}

var _ order.Journal = journal{}

func (j journal) Append(ctx context.Context, entry []byte) (int64, error) {
	time.Sleep(j.network)
	j.mu.Lock()
	done := j.durable(j.work(j.append))
	j.mu.Unlock()
	time.Sleep(time.Until(done))
	pos := j.add(entry)
	time.Sleep(j.network)
	return pos, ctx.Err()
}

// add gives an entry its place.
func (j journal) add(entry []byte) int64 {
	j.mu.Lock()
	defer j.mu.Unlock()
	n := int64(len(j.records)) + 1
	j.records = append(j.records, order.Record{Position: n, Number: n, Entry: entry})
	close(j.grown)
	j.grown = make(chan struct{})
	return n
}

func (j journal) Create(_ context.Context, entry []byte) (bool, error) {
	j.mu.Lock()
	exists := len(j.records) > 0
	j.mu.Unlock()
	if !exists {
		j.add(entry)
	}
	return !exists, nil
}

func (j journal) Position(ctx context.Context) (int64, error) {
	time.Sleep(j.network)
	j.mu.Lock()
	done := j.work(j.position)
	j.positions++
	j.mu.Unlock()
	time.Sleep(time.Until(done))
	j.mu.Lock()
	n := int64(len(j.records))
	j.mu.Unlock()
	time.Sleep(j.network)
	return n, ctx.Err()
}

// Load and Save: no run is long enough for a checkpoint.
func (j journal) Load(context.Context) (order.Checkpoint, error) { return order.Checkpoint{}, nil }
func (j journal) Save(context.Context, order.Checkpoint) error   { return nil }

// Follow hands over what there is in one message, and what came meanwhile in the next.
func (j journal) Follow(ctx context.Context, from int64, each func(order.Record) error) error {
	for {
		j.mu.Lock()
		records, grown := j.records[from:len(j.records):len(j.records)], j.grown
		done := time.Now()
		if len(records) > 0 {
			done = j.work(j.deliver * time.Duration(len(records)))
		}
		j.mu.Unlock()
		if len(records) == 0 {
			select {
			case <-grown:
				continue
			case <-ctx.Done():
				return context.Cause(ctx)
			}
		}
		time.Sleep(time.Until(done) + j.network)
		for _, r := range records {
			if err := each(r); err != nil {
				return err
			}
		}
		from += int64(len(records))
	}
}
