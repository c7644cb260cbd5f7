package lease

import (
	"context"
	"errors"
	"time"

	"github.com/sharder/sharder/stages"
	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"
)

// home reads and writes the records. Every read is linearizable, every write one
// Txn. Errors name the home shard (stages.ShardError); whether a Txn that failed was
// executed is unknown unless etcd refused it.
type home struct {
	shard   *stages.Shard
	kv      pb.KVClient
	lease   pb.LeaseClient
	timeout time.Duration // of one call
}

// state is a lease at one revision of home.
type state struct {
	record
	found    bool // the marker is there
	live     bool // the tick is there, too
	attached []string
	header   *pb.ResponseHeader
}

// owed tells that what is left of the lease has to be deleted.
func (s state) owed() bool { return s.found && !s.live }

// readState are the reads that parseState understands, at the end of a Txn's branch.
func readState(id int64) []*pb.RequestOp {
	attached := attachPrefix + hexID(id) + "/"
	return []*pb.RequestOp{
		opRange(&pb.RangeRequest{Key: markerKey(id)}),
		opRange(&pb.RangeRequest{Key: tickKey(id), KeysOnly: true}),
		opRange(&pb.RangeRequest{Key: []byte(attached), RangeEnd: prefixEnd(attached), KeysOnly: true}),
	}
}

func parseState(header *pb.ResponseHeader, rs []*pb.ResponseOp) (state, error) {
	if len(rs) < 3 {
		return state{}, errors.New("answer to a Txn is too short")
	}
	rs = rs[len(rs)-3:]
	st := state{header: header}
	marker := rs[0].GetResponseRange().GetKvs()
	if len(marker) == 0 {
		return st, nil
	}
	var err error
	if st.record, err = parseMarker(marker[0]); err != nil {
		return st, err
	}
	st.found = true
	st.live = len(rs[1].GetResponseRange().GetKvs()) > 0
	for _, kv := range rs[2].GetResponseRange().GetKvs() {
		if _, rest, ok := idOf(kv.Key, attachPrefix); ok {
			st.attached = append(st.attached, rest[1:])
		}
	}
	return st, nil
}

// look reads a lease.
func (h home) look(ctx context.Context, id int64) (state, error) {
	st, _, err := h.txn(ctx, &pb.TxnRequest{Success: readState(id)})
	return st, err
}

// txn runs a Txn of which at least the branch that was not taken, or both, end
// with readState; done tells whether the compares held.
func (h home) txn(ctx context.Context, t *pb.TxnRequest) (st state, done bool, err error) {
	r, err := h.rawTxn(ctx, t)
	if err != nil {
		return state{}, false, err
	}
	branch := t.Failure
	if r.Succeeded {
		branch = t.Success
	}
	if len(branch) < 3 {
		return state{header: r.Header}, r.Succeeded, nil
	}
	st, err = parseState(r.Header, r.Responses)
	return st, r.Succeeded, at(h.shard, err)
}

// rawTxn runs a Txn and gives the answer as it is.
func (h home) rawTxn(ctx context.Context, t *pb.TxnRequest) (r *pb.TxnResponse, err error) {
	err = bounded(ctx, h.timeout, h.shard, func(ctx context.Context) error {
		r, err = h.kv.Txn(ctx, t)
		return err
	})
	return r, err
}

// record writes a new lease whose etcd lease was granted: done unless one of that
// client id exists, which st then shows.
func (h home) record(ctx context.Context, r record) (st state, done bool, err error) {
	puts := []*pb.RequestOp{opPut(markerKey(r.id), r.marker(), 0), opPut(tickKey(r.id), nil, r.shardID)}
	if r.shardID != r.id {
		puts = append(puts, opPut(aliasKey(r.shardID), []byte(hexID(r.id)), 0))
	}
	return h.txn(ctx, &pb.TxnRequest{
		Compare: []*pb.Compare{absent(markerKey(r.id))},
		Success: append(puts, readState(r.id)...),
		Failure: readState(r.id),
	})
}

// attach notes that a shard may hold keys of the lease, if it is live.
func (h home) attach(ctx context.Context, r record, shard string) (st state, done bool, err error) {
	return h.txn(ctx, &pb.TxnRequest{
		Compare: []*pb.Compare{bornAt(markerKey(r.id), r.born), exists(tickKey(r.id))},
		Success: []*pb.RequestOp{opPut(attachKey(r.id, shard), nil, 0)},
		Failure: readState(r.id),
	})
}

// stop makes an existing lease owed. ended tells that it was live until now.
func (h home) stop(ctx context.Context, id int64) (st state, ended bool, err error) {
	t := &pb.TxnRequest{
		Compare: []*pb.Compare{exists(markerKey(id)), exists(tickKey(id))},
		Success: append([]*pb.RequestOp{opDelete(tickKey(id), nil)}, readState(id)...),
		Failure: readState(id),
	}
	return h.txn(ctx, t)
}

// close ends an owed lease of which nothing is left on any shard. won tells that
// this call did it; otherwise somebody else had. The alias stays.
func (h home) close(ctx context.Context, r record) (header *pb.ResponseHeader, won bool, err error) {
	attached := attachPrefix + hexID(r.id) + "/"
	st, won, err := h.txn(ctx, &pb.TxnRequest{
		Compare: []*pb.Compare{bornAt(markerKey(r.id), r.born), absent(tickKey(r.id))},
		Success: []*pb.RequestOp{opDelete(markerKey(r.id), nil), opDelete([]byte(attached), prefixEnd(attached))},
	})
	return st.header, won, err
}

// detach forgets that a shard holds keys of an owed lease.
func (h home) detach(ctx context.Context, r record, shard string) error {
	_, _, err := h.txn(ctx, &pb.TxnRequest{
		Compare: []*pb.Compare{bornAt(markerKey(r.id), r.born), absent(tickKey(r.id))},
		Success: []*pb.RequestOp{opDelete(attachKey(r.id, shard), nil)},
	})
	return err
}

// pageSize is how many records one read of a list asks for.
const pageSize = 1000

// pages reads all records with a prefix as they were at one revision, at or after
// the call. each gets one page after the other; on a compaction in between the
// reading starts over, with restart called first.
func (h home) pages(ctx context.Context, prefix string, keysOnly bool, restart func(), each func(*pb.RangeResponse) error) error {
	for range 3 {
		err := h.onePass(ctx, prefix, keysOnly, each)
		if !isEtcd(err, rpctypes.ErrGRPCCompacted) {
			return err
		}
		restart()
	}
	return at(h.shard, rpctypes.ErrGRPCCompacted)
}

func (h home) onePass(ctx context.Context, prefix string, keysOnly bool, each func(*pb.RangeResponse) error) error {
	r := &pb.RangeRequest{Key: []byte(prefix), RangeEnd: prefixEnd(prefix), Limit: pageSize, KeysOnly: keysOnly}
	for {
		var page *pb.RangeResponse
		err := bounded(ctx, h.timeout, h.shard, func(ctx context.Context) (err error) {
			page, err = h.kv.Range(ctx, r)
			return err
		})
		if err != nil {
			return err
		}
		if err := each(page); err != nil {
			return err
		}
		if !page.More || len(page.Kvs) == 0 {
			return nil
		}
		if r.Revision == 0 {
			r.Revision = page.Header.Revision
		}
		r.Key = append(page.Kvs[len(page.Kvs)-1].Key, 0)
	}
}
