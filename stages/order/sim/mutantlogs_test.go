package sim

import (
	"context"
	"encoding/binary"
	"sync/atomic"

	"github.com/sharder/sharder/stages/order"
)

// oldPositions answers with what this sharder has been told of the log so far.
type oldPositions struct {
	order.Journal
	pos atomic.Int64
}

func (j *oldPositions) Position(ctx context.Context) (int64, error) {
	if pos := j.pos.Load(); pos > 0 {
		return pos, nil
	}
	return j.Journal.Position(ctx)
}

func (j *oldPositions) Follow(ctx context.Context, from int64, each func(order.Record) error) error {
	return j.Journal.Follow(ctx, from, func(r order.Record) error {
		err := each(r)
		if r.Entry != nil {
			j.pos.Store(max(j.pos.Load(), r.Position))
		}
		return err
	})
}

// gappy leaves out an entry now and then.
type gappy struct {
	order.Journal
	dice *dice
}

func (j gappy) Follow(ctx context.Context, from int64, each func(order.Record) error) error {
	return j.Journal.Follow(ctx, from, func(r order.Record) error {
		if r.Entry != nil && r.Entry[1] == coverKind && j.dice.chance(.05) {
			return nil
		}
		return each(r)
	})
}

// hasty covers one revision more than it should, now and then.
type hasty struct {
	order.Journal
	dice *dice
}

func (j hasty) Append(ctx context.Context, entry []byte) (int64, error) {
	if entry[1] == coverKind && j.dice.chance(.1) {
		more, b := entry[:2:2], entry[2:]
		for len(b) > 0 {
			shard, n := binary.Uvarint(b)
			rev, m := binary.Uvarint(b[n:])
			more = binary.AppendUvarint(binary.AppendUvarint(more, shard), rev+1)
			b = b[n+m:]
		}
		entry = more
	}
	return j.Journal.Append(ctx, entry)
}

// forgetful doesn't keep an entry now and then.
type forgetful struct {
	order.Journal
	dice *dice
}

func (j forgetful) Append(ctx context.Context, entry []byte) (int64, error) {
	if entry[1] == coverKind && j.dice.chance(.1) {
		pos, err := j.Journal.Position(ctx)
		return pos + 1, err
	}
	return j.Journal.Append(ctx, entry)
}
