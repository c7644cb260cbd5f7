package order

import (
	"context"
	"crypto/rand"
	"errors"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/sharder/sharder/pipeline"
	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"
)

// remembered is for how many entries of the log the outcome of a batch is kept, and an Open
// that was held up still counts.
const remembered = 10_000

// notDone is why a batch was not done: nothing of it happened.
type notDone struct{ err error }

func (e *notDone) Error() string { return e.err.Error() }
func (e *notDone) Unwrap() error { return e.err }

// countItems is 0 for a pin: leases that end and lie on one shard each.
func countItems(items []item) int {
	for _, it := range items {
		if it.Txn != nil {
			return len(items)
		}
		for _, e := range it.Ends {
			if len(e.Shards) > 1 {
				return len(items)
			}
		}
	}
	return 0
}

func newNonce() string { return rand.Text() }

// open writes the entry and the record, and finds the batch in the log. After an append
// without an answer it looks before it appends again; what comes late counts once.
func (d *drive) open(ctx context.Context, shards []int, items int) (*batch, error) {
	o := d.order
	text, err := encodeItems(o.opts.Fingerprint, d.items)
	if err != nil {
		return nil, &notDone{refuse(codes.InvalidArgument, "transaction over several shards: %v", err)}
	}
	o.mu.RLock()
	until := o.state.number + remembered
	o.mu.RUnlock()
	e := Entry{Open: &Open{Nonce: d.nonce, Until: until, Shards: shards, Items: items, By: o.opts.Name, At: time.Now().UnixMilli()}}
	for tried := false; ; tried = true {
		pos, err := o.appendOpen(ctx, e.encode(), recordKey{until, d.nonce}, text)
		refused := err
		if err == nil {
			err = o.until(ctx, func(s *state) bool { return s.pos >= pos })
		}
		if err != nil {
			if _, err = o.Now(ctx); err != nil {
				return nil, refuse(codes.Unavailable, "transaction over several shards: outcome unknown: %v", err)
			}
		}
		b, late := o.batchNamed(d.nonce), o.number() >= until
		switch {
		case b != nil:
			return b, nil
		case !tried && isRefusal(refused):
			return nil, &notDone{o.away(refused)}
		case late && o.drives.skipped(d.nonce):
			return nil, errLongAgo
		case late:
			return nil, &notDone{refuse(codes.Unavailable, "transaction over several shards: the order log did not take it in time; nothing was done")}
		}
		if sleep(ctx, minPause) != nil {
			return nil, refuse(status.FromContextError(ctx.Err()).Code(), "transaction over several shards: outcome unknown: it may still begin")
		}
	}
}

// errLongAgo is for a process that slept for so long that the log does not tell any more what
// became of its batch.
var errLongAgo = refuse(codes.Unavailable, "transaction over several shards: outcome unknown: the order log does not reach back to it any more")

// isRefusal tells whether an append that failed is not under way any more: what of it is not
// in the log by now never will be.
func isRefusal(err error) bool {
	return errors.Is(err, pipeline.ErrFull) || isEtcd(err, rpctypes.ErrGRPCNoSpace) ||
		isEtcd(err, rpctypes.ErrGRPCRequestTooManyRequests) || isEtcd(err, rpctypes.ErrGRPCRequestTooLarge)
}

// appendOpen is one bounded attempt; a large record has time for each of its pieces.
func (o *Order) appendOpen(ctx context.Context, entry []byte, key recordKey, record []byte) (int64, error) {
	bounded, cancel := context.WithTimeout(ctx, appendTimeout*time.Duration(1+len(record)/recordPiece))
	defer cancel()
	return o.journal.Open(bounded, entry, key.until, key.nonce, record)
}
