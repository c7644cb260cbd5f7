package importer

import (
	"bytes"
	"context"
	"fmt"
	"sync"
	"sync/atomic"

	"github.com/sourcegraph/conc/iter"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	"go.etcd.io/etcd/api/v3/mvccpb"
	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"
)

// write is one change of the target.
type write struct {
	key, value []byte
	lease      int64
	gone       bool  // delete the key
	seen       int64 // the key's mod revision when it was looked at; 0: it was absent
}

func putOf(p pair) write {
	w := write{key: p.src.Key, value: p.src.Value, lease: p.src.Lease}
	if p.dst != nil {
		w.seen = p.dst.ModRevision
	}
	return w
}

func removeOf(p pair) write { return write{key: p.dst.Key, seen: p.dst.ModRevision, gone: true} }

func (w write) bytes() int64 { return int64(len(w.key) + len(w.value)) }

// done tells whether the target is as the write would make it.
func (w write) done(now *mvccpb.KeyValue) bool {
	if w.gone || now == nil {
		return w.gone && now == nil
	}
	return now.Lease == w.lease && bytes.Equal(now.Value, w.value)
}

// guarded is the transaction of a write: it takes place if the key is as it was seen,
// else it tells how the key is.
func guarded(w write) *pb.TxnRequest {
	change := &pb.RequestOp{Request: &pb.RequestOp_RequestPut{RequestPut: &pb.PutRequest{Key: w.key, Value: w.value, Lease: w.lease}}}
	if w.gone {
		change = &pb.RequestOp{Request: &pb.RequestOp_RequestDeleteRange{RequestDeleteRange: &pb.DeleteRangeRequest{Key: w.key}}}
	}
	return &pb.TxnRequest{
		Compare: []*pb.Compare{{
			Key: w.key, Target: pb.Compare_MOD, Result: pb.Compare_EQUAL,
			TargetUnion: &pb.Compare_ModRevision{ModRevision: w.seen},
		}},
		Success: []*pb.RequestOp{change},
		Failure: []*pb.RequestOp{{Request: &pb.RequestOp_RequestRange{RequestRange: &pb.RangeRequest{Key: w.key}}}},
	}
}

// written is what became of some writes.
type written struct {
	mu                   sync.Mutex
	puts, deletes, bytes int64
	revision             int64    // the newest of them
	conflicts            [][]byte // keys that somebody else changed in between
}

func (d *written) add(w write, revision int64) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.revision = max(d.revision, revision)
	if w.gone {
		d.deletes++
		return
	}
	d.puts++
	d.bytes += w.bytes()
}

func (d *written) changed(key []byte) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.conflicts = append(d.conflicts, key)
}

// writer sends writes to the target, some at a time.
type writer struct {
	kv      pb.KVClient
	retry   retry
	workers int
	leases  *leases
	each    func(w write) // called when one is done, from any goroutine
}

// send does all writes, and gives what was done also after an error, which ends it.
// When ctx ends, writes that have begun are finished, so that what became of them is known.
func (w *writer) send(ctx context.Context, all []write) (*written, error) {
	var d written
	var failed atomic.Pointer[error]
	iter.Iterator[write]{MaxGoroutines: w.workers}.ForEach(all, func(one *write) {
		if failed.Load() != nil || ctx.Err() != nil {
			return
		}
		if err := w.one(ctx, *one, &d); err != nil {
			failed.CompareAndSwap(nil, &err)
		}
	})
	if ctx.Err() != nil {
		return &d, context.Cause(ctx)
	}
	if err := failed.Load(); err != nil {
		return &d, *err
	}
	return &d, nil
}

// one does one write. A lease that ended under way is granted again.
func (w *writer) one(ctx context.Context, one write, d *written) error {
	resp, err := w.try(ctx, one)
	for again := 0; again < 3 && one.lease != 0 && is(err, rpctypes.ErrGRPCLeaseNotFound); again++ {
		if err = w.leases.again(ctx, one.lease); err == nil {
			resp, err = w.try(ctx, one)
		}
	}
	if err != nil {
		return fmt.Errorf("writing the key %q (%d bytes): %w", one.key, one.bytes(), err)
	}
	if resp.Succeeded {
		d.add(one, resp.Header.Revision)
	} else if now := first(resp.Responses[0].GetResponseRange().GetKvs()); one.done(now) {
		d.add(one, now.GetModRevision()) // an earlier try had arrived
	} else {
		d.changed(one.key)
		return nil
	}
	w.each(one)
	return nil
}

// try sends a write until there is an answer. A try that has begun is not given up
// because ctx ends.
func (w *writer) try(ctx context.Context, one write) (resp *pb.TxnResponse, err error) {
	err = w.retry.do(ctx, func(ctx context.Context) error {
		ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), w.retry.call)
		defer cancel()
		resp, err = w.kv.Txn(ctx, guarded(one))
		return err
	})
	return resp, err
}

func first(kvs []*mvccpb.KeyValue) *mvccpb.KeyValue {
	if len(kvs) == 0 {
		return nil
	}
	return kvs[0]
}
