package grpcproxy_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"strings"
	"testing"

	"google.golang.org/protobuf/proto"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
)

// streamRange reads a range as a stream, and calls between after each response but the last.
func streamRange(ctx context.Context, d *door, r *pb.RangeRequest, between func() error) (parts []*pb.RangeResponse, err error) {
	s, err := d.kv().RangeStream(ctx, r)
	for err == nil {
		var m *pb.RangeStreamResponse
		if m, err = s.Recv(); err == nil {
			parts = append(parts, m.RangeResponse)
			if between != nil {
				err = between()
			}
		}
	}
	if errors.Is(err, io.EOF) {
		err = nil
	}
	return parts, err
}

// whole is what the parts of a stream are together, as etcd's client puts them together.
func whole(parts []*pb.RangeResponse) *pb.RangeResponse {
	all := &pb.RangeResponse{}
	for _, p := range parts {
		proto.Merge(all, p)
	}
	return all
}

// etcd's TestV3RangeStreamCount, ...PartialThenCompacted, ...WriteBetweenChunks, ...LargeValues,
// TestKVGetStreamCompactedError, and the comparison of streams with unary reads.
func TestRangesAreStreamedAsByEtcd(t *testing.T) {
	const keys, size = 24, 256 << 10
	probe{
		fault: "RangeStream is not supported",
		want: []string{
			"all: 24 keys of 262144 bytes, more false, count 24, as the unary read: true", "in several responses: true",
			"limit: 5 keys of 262144 bytes, more true, count 24, as the unary read: true",
			"count only: 0 keys, more false, count 24, as the unary read: true",
			"compacted: OutOfRange: etcdserver: mvcc: required revision has been compacted",
			"written to meanwhile: 24 keys of 262144 bytes, revision 25",
		},
		run: func(ctx context.Context, d *door) error {
			c := d.client()
			for i := range keys {
				if _, err := c.Put(ctx, fmt.Sprintf("k%02d", i), strings.Repeat("v", size)); err != nil {
					return err
				}
			}
			all := func() *pb.RangeRequest { return &pb.RangeRequest{Key: []byte("k"), RangeEnd: []byte("l")} }
			limit, count, only, past := all(), all(), all(), all()
			limit.Limit, count.CountOnly, only.KeysOnly, past.Revision = 5, true, true, 10
			for _, x := range []struct {
				name string
				r    *pb.RangeRequest
			}{{"all", all()}, {"limit", limit}, {"count only", count}, {"keys only", only}, {"of a past revision", past}, {"of nothing", one("none")}} {
				parts, err := streamRange(ctx, d, x.r, nil)
				if err != nil {
					d.say("%s: %s", x.name, failure(err))
					continue
				}
				want, err := d.kv().Range(ctx, x.r)
				if err != nil {
					return err
				}
				got := whole(parts)
				d.say("%s: %s, more %v, count %d, as the unary read: %v", x.name, sized(got), got.More, got.Count, proto.Equal(got, want))
				if x.name == "all" {
					d.say("in several responses: %v", len(parts) > 1)
				}
			}
			return streamedUnderWrites(ctx, d, all())
		},
	}.check(t)
}

// streamedUnderWrites writes, and compacts, while a stream is read that is of one moment.
func streamedUnderWrites(ctx context.Context, d *door, r *pb.RangeRequest) error {
	c := d.behind()
	parts, err := streamRange(ctx, d, r, func() error { return second(c.Put(ctx, "k05", "late")) })
	if err != nil {
		d.say("written to meanwhile: %s", failure(err))
		return nil
	}
	d.say("written to meanwhile: %s, %s", sized(whole(parts)), d.header(whole(parts).Header))
	if _, err := c.Compact(ctx, 20); err != nil {
		return err
	}
	r.Revision = 10
	_, err = streamRange(ctx, d, r, nil)
	d.say("compacted: %s", failure(err))
	return nil
}

// sized is how many keys there are and how large they are.
func sized(r *pb.RangeResponse) string {
	if len(r.Kvs) == 0 || len(r.Kvs[0].Value) == 0 {
		return fmt.Sprintf("%d keys", len(r.Kvs))
	}
	return fmt.Sprintf("%d keys of %d bytes", len(r.Kvs), len(r.Kvs[0].Value))
}
