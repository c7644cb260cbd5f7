package importer

import (
	"bytes"
	"context"
	"errors"

	"github.com/sharder/sharder/pipeline"
	"go.etcd.io/etcd/api/v3/mvccpb"
)

// pair is a key on both sides; nil where it is not.
type pair struct{ src, dst *mvccpb.KeyValue }

// key is the pair's key.
func (p pair) key() []byte {
	if p.src != nil {
		return p.src.Key
	}
	return p.dst.Key
}

// join calls each with every key of two scans, in key order, until each fails. Both sides
// are read ahead by a page or two. nil means that both were read to their ends. When it
// returns nothing reads any more.
func join(ctx context.Context, src, dst scan, each func(pair) error) error {
	broken := false
	err := pipeline.Run(ctx, src.pages, 1, func(ctx context.Context, a <-chan page) error {
		return pipeline.Run(ctx, dst.pages, 1, func(_ context.Context, b <-chan page) error {
			err := merge(&cursor{pages: a}, &cursor{pages: b}, each)
			if broken = errors.Is(err, errBroken); broken {
				return nil // the scan's own error says why
			}
			return err
		})
	})
	if err == nil && broken {
		err = errBroken
	}
	return err
}

// merge walks along two cursors. One that breaks off ends the walk before the key at
// which its own next one might have been.
func merge(a, b *cursor, each func(pair) error) error {
	for {
		src, err := a.peek()
		if err != nil {
			return err
		}
		dst, err := b.peek()
		if err != nil {
			return err
		}
		var p pair
		switch order := compare(src, dst); {
		case src == nil && dst == nil:
			return nil
		case order < 0:
			p.src = a.take()
		case order > 0:
			p.dst = b.take()
		default:
			p = pair{a.take(), b.take()}
		}
		if err := each(p); err != nil {
			return err
		}
	}
}

// compare orders two heads; one that has ended comes last.
func compare(a, b *mvccpb.KeyValue) int {
	switch {
	case a == nil && b == nil:
		return 0
	case a == nil:
		return 1
	case b == nil:
		return -1
	}
	return bytes.Compare(a.Key, b.Key)
}

// errBroken says that a scan stopped before its range ended.
var errBroken = errors.New("the scan broke off")

// cursor is a place in a scan.
type cursor struct {
	pages <-chan page
	now   page
}

// peek is the next key-value, nil at the end of the range.
func (c *cursor) peek() (*mvccpb.KeyValue, error) {
	for len(c.now.kvs) == 0 {
		if c.now.last {
			return nil, nil
		}
		var ok bool
		if c.now, ok = <-c.pages; !ok {
			return nil, errBroken
		}
	}
	return c.now.kvs[0], nil
}

// take moves past what peek gave.
func (c *cursor) take() *mvccpb.KeyValue {
	kv := c.now.kvs[0]
	c.now.kvs = c.now.kvs[1:]
	return kv
}
