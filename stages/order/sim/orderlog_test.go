package sim

import (
	"context"
	"errors"
	"sync"
	"time"

	"github.com/sharder/sharder/stages/order"
)

// orderLog is the order cluster: what order.Etcd keeps in a real one, as plain values.
type orderLog struct {
	dice  *dice
	dense bool // positions are 1, 2, 3; else other keys of the cluster take some

	mu         sync.Mutex
	records    []order.Record // what is kept, notices of checkpoints among them
	entries    [][]byte       // all there ever were, for the judge
	positions  []int64        // of these
	pos, first int64          // of the newest entry, of the first
	clock      int64          // the cluster's revision
	forgotten  int64          // nothing at or below is kept
	checkpoint order.Checkpoint
	awayUntil  time.Time
	batches    map[batchRecord][]byte
	grown      chan struct{} // closed and replaced with every record
}

func newOrderLog(d *dice) *orderLog {
	return &orderLog{dice: d, dense: d.chance(.3), clock: 1, grown: make(chan struct{})}
}

func (l *orderLog) away() bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	return time.Now().Before(l.awayUntil)
}

func (l *orderLog) leave(d time.Duration) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.awayUntil = time.Now().Add(d)
}

// add appends a record; mu is held.
func (l *orderLog) add(r order.Record) {
	l.clock++
	if !l.dense {
		l.clock += int64(l.dice.n(3))
	}
	r.Position = l.clock
	l.records = append(l.records, r)
	close(l.grown)
	l.grown = make(chan struct{})
}

func (l *orderLog) append(entry []byte) (int64, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.add(order.Record{Entry: entry})
	l.pos = l.clock
	l.entries, l.positions = append(l.entries, entry), append(l.positions, l.pos)
	if l.first == 0 {
		l.first = l.pos
	}
	return l.pos, nil
}

// batchRecord names the record of a batch.
type batchRecord struct {
	until int64
	nonce string
}

func (l *orderLog) keep(until int64, nonce string, record []byte) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.batches == nil {
		l.batches = map[batchRecord][]byte{}
	}
	l.batches[batchRecord{until, nonce}] = record
}

func (l *orderLog) record(until int64, nonce string) []byte {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.batches[batchRecord{until, nonce}]
}

func (l *orderLog) drop(until int64, nonce string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	delete(l.batches, batchRecord{until, nonce})
}

func (l *orderLog) old(number int64) map[string]int64 {
	l.mu.Lock()
	defer l.mu.Unlock()
	out := map[string]int64{}
	for r := range l.batches {
		if r.until < number {
			out[r.nonce] = r.until
		}
	}
	return out
}

func (l *orderLog) create(entry []byte) (bool, error) {
	l.mu.Lock()
	exists := l.first > 0
	l.mu.Unlock()
	if exists {
		return false, nil
	}
	_, err := l.append(entry)
	return true, err
}

func (l *orderLog) position() (int64, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.pos, nil
}

func (l *orderLog) load() (order.Checkpoint, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	switch {
	case l.first == 0:
		return order.Checkpoint{}, order.ErrNoLog
	case l.checkpoint.Text == nil:
		return order.Checkpoint{Position: l.first - 1}, nil
	}
	return l.checkpoint, nil
}

func (l *orderLog) save(c order.Checkpoint) (struct{}, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.checkpoint.Text != nil && (l.checkpoint.Position > c.Position || l.checkpoint.Swept > c.Swept) {
		return struct{}{}, nil
	}
	l.checkpoint = c
	l.add(order.Record{Checkpoint: order.Checkpoint{Position: c.Position, Swept: c.Swept}})
	for len(l.records) > 0 && l.records[0].Position < c.Position {
		l.records = l.records[1:]
	}
	l.forgotten = max(l.forgotten, c.Position-1) // etcd keeps what is at the compaction's revision
	return struct{}{}, nil
}

// after gives the records behind a position, or a channel that is closed when there are.
func (l *orderLog) after(pos int64) ([]order.Record, <-chan struct{}, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if pos < l.forgotten {
		return nil, nil, order.ErrForgotten
	}
	for i, r := range l.records {
		if r.Position > pos {
			return l.records[i:len(l.records):len(l.records)], nil, nil
		}
	}
	return nil, l.grown, nil
}

// journal is one sharder's way to the order cluster.
type journal struct {
	log *orderLog
	*line
}

var _ order.Journal = (*journal)(nil)

func (j *journal) Append(ctx context.Context, entry []byte) (int64, error) {
	return call(ctx, j.line, func() (int64, error) { return j.log.append(entry) })
}

func (j *journal) Open(ctx context.Context, entry []byte, until int64, nonce string, record []byte) (int64, error) {
	return call(ctx, j.line, func() (int64, error) {
		j.log.keep(until, nonce, record)
		return j.log.append(entry)
	})
}

func (j *journal) LoadRecord(ctx context.Context, until int64, nonce string) ([]byte, error) {
	return call(ctx, j.line, func() ([]byte, error) { return j.log.record(until, nonce), nil })
}

func (j *journal) DropRecord(ctx context.Context, until int64, nonce string) error {
	_, err := call(ctx, j.line, func() (struct{}, error) { j.log.drop(until, nonce); return struct{}{}, nil })
	return err
}

func (j *journal) OldRecords(ctx context.Context, number int64) (map[string]int64, error) {
	return call(ctx, j.line, func() (map[string]int64, error) { return j.log.old(number), nil })
}

func (j *journal) Create(ctx context.Context, entry []byte) (bool, error) {
	return call(ctx, j.line, func() (bool, error) { return j.log.create(entry) })
}

func (j *journal) Position(ctx context.Context) (int64, error) {
	return call(ctx, j.line, j.log.position)
}

func (j *journal) Load(ctx context.Context) (order.Checkpoint, error) {
	return call(ctx, j.line, j.log.load)
}

func (j *journal) Save(ctx context.Context, c order.Checkpoint) error {
	_, err := call(ctx, j.line, func() (struct{}, error) { return j.log.save(c) })
	return err
}

var errStream = errors.New("the stream broke")

// Follow hands over what the cluster sends, one batch after the other, each as late as
// the network likes: an answer to a call may well be faster. Any moment the stream may
// break, and while the cluster is away it is silent.
func (j *journal) Follow(ctx context.Context, from int64, each func(order.Record) error) error {
	breaks := make(chan struct{})
	if j.dice.chance(.5) {
		time.AfterFunc(j.dice.between(0, 3*time.Second), func() { close(breaks) })
	}
	for {
		records, grown, err := j.log.after(from)
		if err != nil {
			return err
		}
		if grown != nil {
			select {
			case <-grown:
				continue
			case <-breaks:
				return errStream
			case <-ctx.Done():
				return context.Cause(ctx)
			}
		}
		records = records[:1+j.dice.n(len(records))]
		if err := j.arrive(ctx, breaks); err != nil {
			return err
		}
		for _, r := range records {
			if err := each(r); err != nil {
				return err
			}
			from = r.Position
		}
	}
}

// arrive returns when a message from the cluster has come.
func (j *journal) arrive(ctx context.Context, breaks <-chan struct{}) error {
	come := make(chan struct{})
	d := j.delay()
	j.from.through(d, func() { close(come) })
	for {
		select {
		case <-come:
			if !j.away() {
				return nil
			}
			come = make(chan struct{})
			j.from.through(20*time.Millisecond, func() { close(come) })
		case <-breaks:
			return errStream
		case <-ctx.Done():
			return context.Cause(ctx)
		}
	}
}
