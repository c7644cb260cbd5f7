package order

import (
	"context"
	"fmt"
	"strconv"
	"strings"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
)

// recordPrefix is where records are kept: below it the number up to which the batch may be
// opened, the nonce, and the number of the piece.
const recordPrefix = "\x00sharder/order/txn/"

// recordPiece is the size of one piece of a record. What fits into one goes into the Txn
// that opens; the pieces of a larger one are there before.
const recordPiece = 256 << 10

func recordPath(until int64, nonce string) string {
	return fmt.Sprintf("%s%020d/%s/", recordPrefix, until, nonce)
}

// Open implements Journal.
func (e *Etcd) Open(ctx context.Context, entry []byte, until int64, nonce string, record []byte) (int64, error) {
	path := recordPath(until, nonce)
	piece := func(i int) string { return fmt.Sprintf("%s%06d", path, i) }
	n := 0
	for ; len(record) > recordPiece; n++ {
		if _, err := e.kv.Put(ctx, &pb.PutRequest{Key: []byte(piece(n)), Value: record[:recordPiece]}); err != nil {
			return 0, err
		}
		record = record[recordPiece:]
	}
	r, err := e.kv.Txn(ctx, &pb.TxnRequest{Success: []*pb.RequestOp{putOp(piece(n), record), putOp(logKey, entry)}})
	if err != nil {
		return 0, err
	}
	e.heard(r.Header)
	return r.Header.Revision, nil
}

// LoadRecord implements Journal.
func (e *Etcd) LoadRecord(ctx context.Context, until int64, nonce string) ([]byte, error) {
	path := recordPath(until, nonce)
	r, err := e.kv.Range(ctx, rangeOp(path, prefixEnd(path), 0))
	if err != nil {
		return nil, err
	}
	var record []byte
	for _, kv := range r.Kvs {
		record = append(record, kv.Value...)
	}
	return record, nil
}

// DropRecord implements Journal.
func (e *Etcd) DropRecord(ctx context.Context, until int64, nonce string) error {
	path := recordPath(until, nonce)
	return e.remove(ctx, path, prefixEnd(path))
}

// OldRecords implements Journal.
func (e *Etcd) OldRecords(ctx context.Context, number int64) (map[string]int64, error) {
	req := rangeOp(recordPrefix, fmt.Sprintf("%s%020d/", recordPrefix, number), 0)
	req.KeysOnly = true
	r, err := e.kv.Range(ctx, req)
	if err != nil {
		return nil, err
	}
	old := map[string]int64{}
	for _, kv := range r.Kvs {
		parts := strings.Split(strings.TrimPrefix(string(kv.Key), recordPrefix), "/")
		if until, err := strconv.ParseInt(parts[0], 10, 64); err == nil && len(parts) == 3 {
			old[parts[1]] = until
		}
	}
	return old, nil
}

// prefixEnd is the end of the range of keys with a prefix that ends with a slash.
func prefixEnd(prefix string) string { return prefix[:len(prefix)-1] + "0" }
