package order

import (
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"

	"google.golang.org/protobuf/proto"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
)

// item is one transaction of a batch, as its record holds it for whoever carries it on:
// either a client's Txn or the end of leases.
type item struct {
	Txn    *pb.TxnRequest
	Leases []boundLease
	Ends   []leaseEnd
}

// boundLease says what a client's lease is on a shard: its id there.
type boundLease struct {
	Lease int64 `json:"lease"`
	Shard int   `json:"shard"`
	ID    int64 `json:"id"`
}

// leaseEnd is the end of one lease: by its id on the shards, and the shards that may have keys
// of it.
type leaseEnd struct {
	ID     int64 `json:"id"`
	Shards []int `json:"shards"`
}

// bind is a lease that something is put with on a shard.
type bind struct {
	lease int64 // the client's id
	shard int
}

// bound notes what a lease is on a shard.
func (it *item) bound(b bind, id int64) {
	it.Leases = append(it.Leases, boundLease{Lease: b.lease, Shard: b.shard, ID: id})
}

// leaseOn gives the id of a lease on a shard; false if it was not bound there.
func (it *item) leaseOn(shard int, lease int64) (int64, bool) {
	for _, b := range it.Leases {
		if b.Shard == shard && b.Lease == lease {
			return b.ID, true
		}
	}
	return 0, false
}

// isBound tells whether a lease is bound wherever the transaction puts with it.
func (it *item) isBound(lease int64) bool {
	for _, b := range it.Leases {
		if b.Lease == lease {
			return true
		}
	}
	return false
}

// recordKey names the record of a batch in the order cluster.
type recordKey struct {
	until int64 // the log's entry number up to which it may be opened
	nonce string
}

// recordVersion is the form of records this code writes; it reads all up to it.
const recordVersion = 1

// recordRest is what a record holds of an item besides the Txn.
type recordRest struct {
	Leases []boundLease `json:"leases,omitempty"`
	Ends   []leaseEnd   `json:"ends,omitempty"`
}

// encodeItems gives a record: the version, the fingerprint of the routes, then for each
// item the Txn in its own form and the rest as JSON; all but the version with their length
// before them.
func encodeItems(routes string, items []item) ([]byte, error) {
	b := binary.AppendUvarint([]byte{recordVersion}, uint64(len(routes)))
	b = append(b, routes...)
	for _, it := range items {
		var txn []byte
		if it.Txn != nil {
			var err error
			if txn, err = proto.Marshal(it.Txn); err != nil {
				return nil, err
			}
		}
		rest, _ := json.Marshal(recordRest{it.Leases, it.Ends}) // numbers: can't fail
		for _, part := range [][]byte{txn, rest} {
			b = binary.AppendUvarint(b, uint64(len(part)))
			b = append(b, part...)
		}
	}
	return b, nil
}

// decodeItems reads a record. The error is ErrNewer or wraps errCorrupt.
func decodeItems(b []byte) (routes string, items []item, err error) {
	if len(b) == 0 || b[0] == 0 {
		return "", nil, fmt.Errorf("%w: a record without a version", errCorrupt)
	}
	if b[0] > recordVersion {
		return "", nil, ErrNewer
	}
	text, rest, ok := cutPart(b[1:])
	for ok && len(rest) > 0 {
		var txn, more []byte
		if txn, rest, ok = cutPart(rest); ok {
			more, rest, ok = cutPart(rest)
		}
		if !ok {
			break
		}
		it, err := decodeItem(txn, more)
		if err != nil {
			return "", nil, fmt.Errorf("%w: a record: %w", errCorrupt, err)
		}
		items = append(items, it)
	}
	if !ok {
		return "", nil, fmt.Errorf("%w: a record is cut off", errCorrupt)
	}
	return string(text), items, nil
}

// cutPart takes what has its length before it off.
func cutPart(b []byte) (part, rest []byte, ok bool) {
	n, used := binary.Uvarint(b)
	if used <= 0 || n > uint64(len(b)-used) {
		return nil, nil, false
	}
	return b[used : used+int(n)], b[used+int(n):], true
}

func decodeItem(txn, rest []byte) (it item, err error) {
	var r recordRest
	if err := json.Unmarshal(rest, &r); err != nil {
		return it, err
	}
	it.Leases, it.Ends = r.Leases, r.Ends
	if len(it.Ends) == 0 {
		it.Txn = &pb.TxnRequest{}
		return it, proto.Unmarshal(txn, it.Txn)
	}
	if len(txn) > 0 {
		err = errors.New("a Txn that ends leases")
	}
	return it, err
}
