package importer

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"math/rand/v2"
	"time"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
)

// RecordKey is where the order cluster keeps how far an import has come.
const RecordKey = "\x00sharder/import"

// recordVersion is the form of the record that this code writes and understands.
const recordVersion = 1

// The phases of a record. A round that has finished is done.
const (
	phaseCopy   = "copy"
	phaseLeases = "leases"
	phaseDone   = "done"
)

// record is how far an import has come. It is written as JSON; bytes are in base 64.
type record struct {
	Version int `json:"version"`
	// Source is the id of the source's cluster in hexadecimal; Prefix is what its keys
	// begin with, if not all are wanted.
	Source string `json:"source_cluster_id"`
	Prefix []byte `json:"prefix,omitempty"`
	// Revision is the source's revision that this round copies. Base is the oldest one
	// that copies in the target may still be of, and Complete says that all of them are
	// of this one at least, because a round has finished.
	Revision int64 `json:"revision"`
	Base     int64 `json:"base"`
	Complete bool  `json:"complete,omitempty"`
	Rounds   int   `json:"rounds"`
	// Keys is how many keys the source has at Revision, which never changes: etcds that
	// were set up alike have the same cluster id.
	Keys int64 `json:"keys"`

	Phase string `json:"phase"`
	// Keys below Next are done in this phase; those from Next to Ahead, both included,
	// may be.
	Next  []byte `json:"next,omitempty"`
	Ahead []byte `json:"ahead,omitempty"`
	// Leased says that keys with leases have been seen.
	Leased bool `json:"leased,omitempty"`

	// Start is the target's revision before the first write, Written the newest
	// one that an import is known to have written.
	Start   int64 `json:"target_start"`
	Written int64 `json:"target_written"`

	Began   time.Time `json:"began"`
	Saved   time.Time `json:"saved"`
	Puts    int64     `json:"puts"`
	Bytes   int64     `json:"bytes"`
	Deletes int64     `json:"deletes"`

	// Writer tells the processes apart that had the record in their hands.
	Writer uint64 `json:"writer"`
}

// errTakenOver ends an import whose record another process has changed.
var errTakenOver = errors.New("another import has taken over; let one run at a time")

// errUnreadable is a record that this code can't go on from.
var errUnreadable = errors.New("the import's record can't be gone on from")

// records keeps the record in an etcd. It is used by one goroutine.
type records struct {
	kv     pb.KVClient
	retry  retry
	mod    int64 // of the record as it was read or written last; 0: there was none
	writer uint64
}

func newRecords(kv pb.KVClient, r retry) *records {
	return &records{kv: kv, retry: r, writer: rand.Uint64()}
}

// load reads the record; nil if there is none.
func (r *records) load(ctx context.Context) (*record, error) {
	var resp *pb.RangeResponse
	err := r.retry.do(ctx, func(ctx context.Context) (err error) {
		resp, err = r.kv.Range(ctx, &pb.RangeRequest{Key: []byte(RecordKey)})
		return err
	})
	if err != nil {
		return nil, fmt.Errorf("reading the import's record: %w", err)
	}
	if len(resp.Kvs) == 0 {
		r.mod = 0
		return nil, nil
	}
	r.mod = resp.Kvs[0].ModRevision
	rec := &record{}
	if err := json.Unmarshal(resp.Kvs[0].Value, rec); err != nil {
		return nil, fmt.Errorf("%w: %w; --restart forgets it", errUnreadable, err)
	}
	if rec.Version != recordVersion {
		return nil, fmt.Errorf("%w: it has version %d, this sharder knows version %d; go on with a sharder as new as the one that wrote it, or forget it with --restart", errUnreadable, rec.Version, recordVersion)
	}
	return rec, nil
}

// save replaces the record, unless another process has. A save that is repeated because
// its answer was lost finds its own text.
func (r *records) save(ctx context.Context, rec *record) error {
	rec.Version, rec.Writer, rec.Saved = recordVersion, r.writer, time.Now().UTC()
	text, err := json.Marshal(rec)
	if err != nil {
		return err
	}
	var resp *pb.TxnResponse
	err = r.retry.do(ctx, func(ctx context.Context) (err error) {
		resp, err = r.kv.Txn(ctx, guarded(write{key: []byte(RecordKey), value: text, seen: r.mod}))
		return err
	})
	switch {
	case err != nil:
		return fmt.Errorf("writing the import's record: %w", err)
	case resp.Succeeded:
		r.mod = resp.Header.Revision
		return nil
	}
	kvs := resp.Responses[0].GetResponseRange().GetKvs()
	if len(kvs) != 1 || !bytes.Equal(kvs[0].Value, text) {
		return errTakenOver
	}
	r.mod = kvs[0].ModRevision
	return nil
}
