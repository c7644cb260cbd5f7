package grpcproxy_test

import (
	"context"
	"testing"
	"time"

	"google.golang.org/protobuf/proto"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	clientv3 "go.etcd.io/etcd/client/v3"
)

// fresh reads serializably until it sees what it wants, for a while: what is written past a
// door may take a moment to be seen there, and must not be stale for ever.
func fresh(ctx context.Context, d *door, what string, want string, r *pb.RangeRequest) error {
	r = proto.CloneOf(r) // the other doors' as well
	r.Serializable = true
	got, kv := "", d.kv()
	for end := time.Now().Add(soon); time.Now().Before(end); time.Sleep(5 * time.Millisecond) {
		m, err := kv.Range(ctx, r)
		if err != nil {
			return err
		}
		got = ""
		for _, kv := range m.Kvs {
			got += string(kv.Key) + "=" + string(kv.Value) + " "
		}
		if got == want {
			break
		}
	}
	d.say("%s: %s", what, got)
	return nil
}

// one is a read of one key.
func one(key string) *pb.RangeRequest { return &pb.RangeRequest{Key: []byte(key)} }

// stale are the ways in which grpc-proxy's memory is behind: each writes, past the door if it
// says so, and reads what was read before.
var stale = []struct {
	name         string
	before, want string
	read         *pb.RangeRequest
	do           func(ctx context.Context, d *door) error
}{
	{"written elsewhere", "a=1 ", "a=2 ", one("a"), func(ctx context.Context, d *door) error {
		return second(d.behind().Put(ctx, "a", "2"))
	}},
	{"written in a nested transaction", "b=1 ", "b=2 ", one("b"), func(ctx context.Context, d *door) error {
		put := &pb.TxnRequest{Success: []*pb.RequestOp{{Request: &pb.RequestOp_RequestPut{RequestPut: &pb.PutRequest{Key: []byte("b"), Value: []byte("2")}}}}}
		return second(d.kv().Txn(ctx, nested(put)))
	}},
	{"a lease revoked", "c=1 ", "", one("c"), func(ctx context.Context, d *door) error {
		return second(d.lease().LeaseRevoke(ctx, &pb.LeaseRevokeRequest{ID: 7}))
	}},
	{"written into a range without an end", "x=1 y=1 ", "x=1 y=2 ", &pb.RangeRequest{Key: []byte("x"), RangeEnd: []byte{0}}, func(ctx context.Context, d *door) error {
		return second(d.client().Put(ctx, "y", "2"))
	}},
	{"deleted by range", "d1=1 d2=1 ", "d2=1 ", &pb.RangeRequest{Key: []byte("d"), RangeEnd: []byte("e")}, func(ctx context.Context, d *door) error {
		return second(d.client().Delete(ctx, "d1", clientv3.WithRange("d2")))
	}},
	{"behind a compaction", "e=1 ", "e=2 ", one("e"), func(ctx context.Context, d *door) error {
		p, err := d.client().Put(ctx, "other", "v")
		if err != nil {
			return err
		}
		if _, err := d.client().Compact(ctx, p.Header.Revision); err != nil {
			return err
		}
		if _, err := d.kv().Range(ctx, one("e")); err != nil {
			return err
		}
		return second(d.behind().Put(ctx, "e", "2"))
	}},
	{"a lease expired", "f=1 ", "", one("f"), func(ctx context.Context, d *door) error {
		c := d.behind()
		for end := time.Now().Add(soon); time.Now().Before(end); time.Sleep(50 * time.Millisecond) {
			if r, err := c.Get(ctx, "f"); err != nil || len(r.Kvs) == 0 {
				return err
			}
		}
		return nil
	}},
}

// P08: what was read once is not what is read for ever.
func TestSerializableReadsAreNotStale(t *testing.T) {
	var want []string
	for _, s := range stale {
		want = append(want, s.name+": "+s.want)
	}
	probe{
		fault: "all of them are stale for ever",
		want:  want,
		run: func(ctx context.Context, d *door) error {
			c := d.client()
			for id, ttl := range map[int64]int64{7: 600, 8: 8} {
				if _, err := d.lease().LeaseGrant(ctx, &pb.LeaseGrantRequest{ID: id, TTL: ttl}); err != nil {
					return err
				}
			}
			for _, key := range []string{"a", "b", "c", "d1", "d2", "e", "f", "x", "y"} {
				r := &pb.PutRequest{Key: []byte(key), Value: []byte("1"), Lease: map[string]int64{"c": 7, "f": 8}[key]}
				if _, err := d.kv().Put(ctx, r); err != nil {
					return err
				}
			}
			for _, s := range stale {
				if err := fresh(ctx, d, s.name+", before", s.before, s.read); err != nil {
					return err
				}
			}
			for _, s := range stale {
				if err := s.do(ctx, d); err != nil {
					return err
				}
				if err := fresh(ctx, d, s.name, s.want, s.read); err != nil {
					return err
				}
			}
			// What a client wrote through the door itself is seen at once.
			for i := range 50 {
				v := string(rune('A' + i))
				if _, err := c.Put(ctx, "own", v); err != nil {
					return err
				}
				r, err := c.Get(ctx, "own", clientv3.WithSerializable())
				if err != nil {
					return err
				}
				if string(r.Kvs[0].Value) != v {
					d.say("own writes are not seen: %s after %s", r.Kvs[0].Value, v)
				}
			}
			return nil
		},
	}.check(t)
}

// P08: revisions of answers don't go back, and every answer has etcd's header.
func TestRevisionsOfAnswersDoNotGoBack(t *testing.T) {
	probe{
		fault: "answers from memory have old headers, those cached from transactions none",
		want:  []string{"0: revision 2, revision 2, revision 2", "1: revision 3, revision 3, revision 3"},
		run: func(ctx context.Context, d *door) error {
			kv := d.kv()
			for i := range 5 {
				p, err := d.behind().Put(ctx, "k", "v")
				if err != nil {
					return err
				}
				lin, err := kv.Range(ctx, one("other"))
				if err != nil {
					return err
				}
				txn, err := kv.Txn(ctx, &pb.TxnRequest{Success: []*pb.RequestOp{{Request: &pb.RequestOp_RequestRange{RequestRange: one("t")}}}})
				if err != nil {
					return err
				}
				var ser string
				for end := time.Now().Add(soon); time.Now().Before(end) && ser != d.header(p.Header); {
					for _, key := range []string{"k", "t"} {
						r, err := kv.Range(ctx, &pb.RangeRequest{Key: []byte(key), Serializable: true})
						if err != nil {
							return err
						}
						ser = d.header(r.Header)
					}
				}
				d.say("%d: %s, %s, %s", i, d.header(lin.Header), d.header(txn.Header), ser)
			}
			return nil
		},
	}.check(t)
}
