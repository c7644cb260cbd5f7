package order

import (
	"context"
	"errors"
	"fmt"

	"google.golang.org/grpc/codes"
)

// load reads the record. It is gone only if the batch is.
func (d *drive) load(ctx context.Context, b *batch) error {
	text, err := d.order.journal.LoadRecord(ctx, b.Until, b.Nonce)
	if err != nil {
		return err
	}
	if text == nil {
		if _, err := d.order.Now(ctx); err != nil {
			return err
		}
		if now := d.order.batchNamed(d.nonce); now == nil || now.finished() {
			return errEnded
		}
		return d.withoutRecord(ctx, b)
	}
	routes, items, err := decodeItems(text)
	if err == nil {
		d.items, d.foreign = items, routes != d.order.opts.Fingerprint
	}
	return err
}

// errForeign says that only a sharder with the routes of the one that opened can go on.
var errForeign = errors.New("it was decided under other routes than those of this sharder")

// wind does what may be done about a batch that was opened under other routes: where its
// keys lie is not ours to say. As long as it is not decided it can be rolled back, if it has been
// left alone for so long that nobody with these routes seems to be there.
func (d *drive) wind(ctx context.Context, b *batch) error {
	if b.Phase == decided {
		return errForeign
	}
	patient, cancel := context.WithTimeout(ctx, 2*d.order.opts.QueueTimeout)
	defer cancel()
	err := d.order.until(patient, func(s *state) bool {
		now := s.batches.find(b.ID)
		return now == nil || now.Phase != b.Phase
	})
	if err == nil || patient.Err() == nil || ctx.Err() != nil {
		return err
	}
	return d.append(ctx, Entry{Decided: &Decided{ID: b.ID, RolledBack: true}})
}

// withoutRecord rolls a batch back that nobody can do. For one that is decided only an operator
// can help: what it was to write is lost with the record.
func (d *drive) withoutRecord(ctx context.Context, b *batch) error {
	if b.Phase <= active && !b.pin() {
		d.why = refuse(codes.Unavailable, "transaction over several shards: the order cluster has lost what it was about; nothing was done")
		if err := d.append(ctx, Entry{Decided: &Decided{ID: b.ID, RolledBack: true}}); err != nil {
			return err
		}
		return errEnded // b is not what it was
	}
	if b.pin() { // its leases are still owed, and will be ended by another
		d.items = []item{}
		return nil
	}
	return fmt.Errorf("%w: the record of batch %d is missing", errCorrupt, b.ID)
}
