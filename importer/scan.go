package importer

import (
	"bytes"
	"context"
	"errors"
	"fmt"

	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"

	"github.com/sharder/sharder/pipeline"
	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	"go.etcd.io/etcd/api/v3/mvccpb"
	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"
)

// Pages aim at so many bytes: etcd counts the rest of the range for each, so that
// small ones are dear. The first are small because the values' sizes are not known yet.
const (
	pageBytes = 4 << 20
	firstPage = 128
	maxPage   = 10_000
)

// span is a range of keys as etcd's requests have it.
type span struct{ key, end []byte }

// all are the keys of clients: what begins with NUL is sharder's own.
var all = span{key: []byte{1}, end: []byte{0}}

// reservedSpan holds the keys that can't be brought.
var reservedSpan = span{key: []byte{0}, end: []byte{1}}

// prefixed is the range of the keys that begin with a prefix.
func prefixed(prefix []byte) span {
	if len(prefix) == 0 {
		return all
	}
	end := bytes.Clone(prefix)
	for len(end) > 0 && end[len(end)-1] == 0xff {
		end = end[:len(end)-1]
	}
	if len(end) == 0 {
		return span{key: prefix, end: []byte{0}}
	}
	end[len(end)-1]++
	return span{key: prefix, end: end}
}

// from is the part of the range from a key on; nil is all of it.
func (s span) from(key []byte) span {
	if bytes.Compare(key, s.key) > 0 {
		s.key = key
	}
	return s
}

// compactedError says that a side has compacted the revision it was read at.
type compactedError struct{ side string }

// Error implements error.
func (e compactedError) Error() string {
	return fmt.Sprintf("the %s compacted the revision it is read at", e.side)
}

// page is a part of a scan. Only a last one says that the range has ended: a scan that
// fails just stops, and must not look like one with fewer keys.
type page struct {
	kvs  []*mvccpb.KeyValue
	last bool
}

// scan reads a range in key order.
type scan struct {
	kv pb.KVClient
	span
	revision int64  // 0: each page as it is now
	side     string // "source" or "target", for errors
	retry    retry
}

// pages is the scan as a source of the pipeline.
func (s scan) pages(ctx context.Context, out chan<- page) error {
	limit := int64(firstPage)
	for next := s.key; ; {
		var r *pb.RangeResponse
		err := s.retry.do(ctx, func(ctx context.Context) (err error) {
			r, err = s.kv.Range(ctx, &pb.RangeRequest{Key: next, RangeEnd: s.end, Limit: limit, Revision: s.revision})
			return err
		})
		if err != nil {
			return s.explain(err)
		}
		last := !r.More || len(r.Kvs) == 0
		if err := pipeline.Emit(ctx, out, page{kvs: r.Kvs, last: last}); err != nil || last {
			return err
		}
		next = after(r.Kvs[len(r.Kvs)-1].Key)
		limit = nextLimit(limit, proto.Size(r))
	}
}

// after is the smallest key above a key.
func after(key []byte) []byte { return append(bytes.Clone(key), 0) }

// nextLimit steers pages towards their size, twice as many keys at most.
func nextLimit(limit int64, got int) int64 {
	fit := limit * pageBytes / int64(max(got, 1))
	return max(1, min(fit, 2*limit, maxPage))
}

func (s scan) explain(err error) error {
	switch {
	case is(err, rpctypes.ErrGRPCCompacted):
		return compactedError{s.side}
	case errors.Is(err, context.Canceled):
		return err
	}
	return fmt.Errorf("reading the %s: %w", s.side, err)
}

// is tells whether an answer is one of etcd's own errors.
func is(err, want error) bool {
	if err == nil {
		return false
	}
	have, w := status.Convert(err), status.Convert(want)
	return have.Code() == w.Code() && have.Message() == w.Message()
}
