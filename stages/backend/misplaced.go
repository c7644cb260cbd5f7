package backend

import (
	"bytes"
	"context"
	"fmt"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"
	"google.golang.org/grpc"
)

// scanPage is how many keys one request of a scan gives. etcd counts the whole rest
// of the range for every page, so pages are large; keys come without values.
const scanPage = 10_000

// firstKey is the smallest key that is not sharder's own.
var firstKey = []byte{1}

// KeyRange is the keys from Key up to, not including, End. An empty Key is the first
// key there can be; an empty End, or etcd's "\x00", is the end of all keys.
type KeyRange struct{ Key, End []byte }

// Misplaced looks for a key in ranges, those that do not belong on this shard, and
// gives one if there is any, or nil. Keys of sharder's own (they begin with a NUL)
// are at home everywhere. The answer is linearizable.
func Misplaced(ctx context.Context, conn grpc.ClientConnInterface, ranges []KeyRange) (key []byte, err error) {
	kv := pb.NewKVClient(conn)
	for _, r := range ranges {
		from, to, ok := r.request()
		if !ok {
			continue
		}
		reply, err := kv.Range(ctx, &pb.RangeRequest{Key: from, RangeEnd: to, Limit: 1, KeysOnly: true})
		if err != nil {
			return nil, fmt.Errorf("sharder: looking for keys on the wrong shard: %w", err)
		}
		if len(reply.Kvs) > 0 {
			return reply.Kvs[0].Key, nil
		}
	}
	return nil, nil
}

// MisplacedHash looks through the keys from key to end (as in [KeyRange]) for one
// that belongs denies, and gives it, or nil. It reads keys in pages, all of them at
// one revision, so a key that was there when it began is seen.
func MisplacedHash(ctx context.Context, conn grpc.ClientConnInterface, key, end []byte, belongs func(key []byte) bool) ([]byte, error) {
	from, to, ok := KeyRange{Key: key, End: end}.request()
	if !ok {
		return nil, nil
	}
	kv := pb.NewKVClient(conn)
	revision := int64(0)
	for {
		reply, err := kv.Range(ctx, &pb.RangeRequest{Key: from, RangeEnd: to, Limit: scanPage, KeysOnly: true, Revision: revision})
		if sameStatus(err, rpctypes.ErrGRPCCompacted) && revision != 0 {
			// Compacted under us: keys from here on are looked at as they are now.
			revision = 0
			continue
		}
		if err != nil {
			return nil, fmt.Errorf("sharder: looking for keys on the wrong shard: %w", err)
		}
		for _, found := range reply.Kvs {
			if !belongs(found.Key) {
				return found.Key, nil
			}
		}
		if !reply.More || len(reply.Kvs) == 0 {
			return nil, nil
		}
		revision = reply.Header.Revision
		from = append(bytes.Clone(reply.Kvs[len(reply.Kvs)-1].Key), 0)
	}
}

// request gives the range as etcd spells it, without the reserved keys; ok is false
// if nothing is left.
func (r KeyRange) request() (from, to []byte, ok bool) {
	from, to = r.Key, r.End
	if bytes.Compare(from, firstKey) < 0 {
		from = firstKey
	}
	if len(to) == 0 || bytes.Equal(to, []byte{0}) {
		return from, []byte{0}, true
	}
	return from, to, bytes.Compare(from, to) < 0
}
