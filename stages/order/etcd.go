package order

import (
	"context"
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"sync/atomic"

	"google.golang.org/grpc"
	"google.golang.org/grpc/metadata"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	"go.etcd.io/etcd/api/v3/mvccpb"
	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"
)

// The keys in the order cluster; docs/order-log.md describes them for people. The log
// and the notice of the newest checkpoint lie side by side, so that one watcher has both.
const (
	logKey        = "\x00sharder/order/log"
	checkpointKey = "\x00sharder/order/log.checkpoint"
	followEnd     = "\x00sharder/order/log/"
	piecePrefix   = "\x00sharder/order/piece/"
)

// pieceBytes is the size of one piece of a checkpoint: small, since a large Put would
// hold up the entries behind it.
const pieceBytes = 64 << 10

// Etcd keeps a log in an etcd cluster, as the version history of one key: a version is
// an entry, its position the cluster's revision. Conn reaches the cluster and bounds
// each call in time (package backend does).
type Etcd struct {
	kv    pb.KVClient
	watch pb.WatchClient
	term  atomic.Uint64 // the newest raft term heard of
}

// NewEtcd makes a journal in the cluster behind a connection.
func NewEtcd(conn grpc.ClientConnInterface) *Etcd {
	return &Etcd{kv: pb.NewKVClient(conn), watch: pb.NewWatchClient(conn)}
}

var _ Journal = (*Etcd)(nil)

// Term is the newest raft term that the cluster has spoken of, for headers.
func (e *Etcd) Term() uint64 { return e.term.Load() }

func (e *Etcd) heard(h *pb.ResponseHeader) {
	if t := h.GetRaftTerm(); t > e.term.Load() {
		e.term.Store(t) // two at once may leave the older: it is for show
	}
}

// Append implements Journal.
func (e *Etcd) Append(ctx context.Context, entry []byte) (int64, error) {
	r, err := e.kv.Put(ctx, &pb.PutRequest{Key: []byte(logKey), Value: entry})
	if err != nil {
		return 0, err
	}
	e.heard(r.Header)
	return r.Header.Revision, nil
}

// Create implements Journal.
func (e *Etcd) Create(ctx context.Context, entry []byte) (bool, error) {
	r, err := e.kv.Txn(ctx, &pb.TxnRequest{
		Compare: []*pb.Compare{{Key: []byte(logKey), Target: pb.Compare_VERSION, Result: pb.Compare_EQUAL, TargetUnion: &pb.Compare_Version{}}},
		Success: []*pb.RequestOp{putOp(logKey, entry)},
	})
	return r.GetSucceeded(), err
}

func putOp(key string, value []byte) *pb.RequestOp {
	return &pb.RequestOp{Request: &pb.RequestOp_RequestPut{RequestPut: &pb.PutRequest{Key: []byte(key), Value: value}}}
}

func rangeOp(key, end string, revision int64) *pb.RangeRequest {
	r := &pb.RangeRequest{Key: []byte(key), Revision: revision}
	if end != "" {
		r.RangeEnd = []byte(end)
	}
	return r
}

// positionRequest is the linearizable read of the newest position.
var positionRequest = &pb.RangeRequest{Key: []byte(logKey), KeysOnly: true}

// Position implements Journal.
func (e *Etcd) Position(ctx context.Context) (int64, error) {
	r, err := e.kv.Range(ctx, positionRequest)
	if err != nil {
		return 0, err
	}
	e.heard(r.Header)
	if len(r.Kvs) == 0 {
		return 0, nil
	}
	return r.Kvs[0].ModRevision, nil
}

// storedCheckpoint is the value under checkpointKey.
type storedCheckpoint struct {
	Version  int    `json:"version"`
	Position int64  `json:"position"`
	Swept    int64  `json:"swept,omitempty"`
	ID       uint64 `json:"id"`
	Pieces   int    `json:"pieces"`
	Bytes    int    `json:"bytes"`
}

func parseCheckpoint(kv *mvccpb.KeyValue) (storedCheckpoint, error) {
	var c storedCheckpoint
	if err := json.Unmarshal(kv.Value, &c); err != nil {
		return c, fmt.Errorf("%w: checkpoint: %w", errCorrupt, err)
	}
	switch {
	case c.Version > stateVersion:
		return c, ErrNewer
	case c.Version < 1 || c.Position < 1 || c.Pieces < 1 || c.Bytes <= (c.Pieces-1)*pieceBytes || c.Bytes > c.Pieces*pieceBytes:
		return c, fmt.Errorf("%w: checkpoint: %s", errCorrupt, kv.Value)
	}
	return c, nil
}

// Load implements Journal. Everything is read at one revision; a compaction in between
// starts it over.
func (e *Etcd) Load(ctx context.Context) (Checkpoint, error) {
	for {
		c, err := e.loadOnce(ctx)
		if !isEtcd(err, rpctypes.ErrGRPCCompacted) {
			return c, err
		}
	}
}

func (e *Etcd) loadOnce(ctx context.Context) (Checkpoint, error) {
	r, err := e.kv.Range(ctx, rangeOp(checkpointKey, "", 0))
	if err != nil {
		return Checkpoint{}, err
	}
	e.heard(r.Header)
	if len(r.Kvs) == 0 {
		return e.beginning(ctx, r.Header.Revision)
	}
	stored, err := parseCheckpoint(r.Kvs[0])
	if err != nil {
		return Checkpoint{}, err
	}
	c := Checkpoint{Position: stored.Position, Swept: stored.Swept}
	for i := range stored.Pieces {
		p, err := e.kv.Range(ctx, rangeOp(stored.piece(i), "", r.Header.Revision))
		if err != nil {
			return Checkpoint{}, err
		}
		if len(p.Kvs) != 1 {
			return Checkpoint{}, fmt.Errorf("%w: piece %d of the checkpoint at %d is missing", errCorrupt, i, stored.Position)
		}
		c.Text = append(c.Text, p.Kvs[0].Value...)
	}
	if len(c.Text) != stored.Bytes {
		return Checkpoint{}, fmt.Errorf("%w: the checkpoint at %d has %d bytes of %d", errCorrupt, stored.Position, len(c.Text), stored.Bytes)
	}
	return c, nil
}

// beginning finds where a log without a checkpoint begins.
func (e *Etcd) beginning(ctx context.Context, revision int64) (Checkpoint, error) {
	r, err := e.kv.Range(ctx, rangeOp(logKey, "", revision))
	if err != nil {
		return Checkpoint{}, err
	}
	if len(r.Kvs) == 0 {
		return Checkpoint{}, ErrNoLog
	}
	return Checkpoint{Position: r.Kvs[0].CreateRevision - 1}, nil
}

// piece is the key of one of the checkpoint's pieces.
func (c storedCheckpoint) piece(i int) string {
	return fmt.Sprintf("%s%016x/%016x/%06d", piecePrefix, c.Position, c.ID, i)
}

// Follow implements Journal. The stream demands a leader: a member that is cut off from
// the others would keep it open and silent.
func (e *Etcd) Follow(ctx context.Context, from int64, each func(Record) error) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	stream, err := e.watch.Watch(metadata.AppendToOutgoingContext(ctx, rpctypes.MetadataRequireLeaderKey, rpctypes.MetadataHasLeader))
	if err != nil {
		return err
	}
	err = stream.Send(&pb.WatchRequest{RequestUnion: &pb.WatchRequest_CreateRequest{CreateRequest: &pb.WatchCreateRequest{
		Key: []byte(logKey), RangeEnd: []byte(followEnd), StartRevision: from + 1,
		Filters: []pb.WatchCreateRequest_FilterType{pb.WatchCreateRequest_NODELETE},
	}}})
	for err == nil {
		var r *pb.WatchResponse
		if r, err = stream.Recv(); err != nil {
			break
		}
		e.heard(r.Header)
		if r.Canceled {
			if r.CompactRevision > 0 {
				return ErrForgotten
			}
			return fmt.Errorf("the watch on the order log was cancelled: %s", r.CancelReason)
		}
		for _, ev := range r.Events {
			if err := deliver(ev.Kv, each); err != nil {
				return err
			}
		}
	}
	return err
}

func deliver(kv *mvccpb.KeyValue, each func(Record) error) error {
	switch string(kv.Key) {
	case logKey:
		return each(Record{Position: kv.ModRevision, Number: kv.Version, Entry: kv.Value})
	case checkpointKey:
		c, err := parseCheckpoint(kv)
		if err != nil {
			return err
		}
		return each(Record{Position: kv.ModRevision, Checkpoint: Checkpoint{Position: c.Position, Swept: c.Swept}})
	}
	return nil
}

// Save implements Journal: the pieces, then the notice, unless a better one is there;
// then what is older goes, and the history before the checkpoint's position. Pieces have
// an id of their own, so that two that save at once don't mix theirs.
func (e *Etcd) Save(ctx context.Context, c Checkpoint) error {
	stored := storedCheckpoint{Version: stateVersion, Position: c.Position, Swept: c.Swept, Bytes: len(c.Text), ID: rand.Uint64()}
	for rest := c.Text; len(rest) > 0; stored.Pieces++ {
		n := min(len(rest), pieceBytes)
		if _, err := e.kv.Put(ctx, &pb.PutRequest{Key: []byte(stored.piece(stored.Pieces)), Value: rest[:n]}); err != nil {
			return err
		}
		rest = rest[n:]
	}
	published, err := e.publish(ctx, stored)
	if err != nil {
		return err
	}
	if !published {
		return e.remove(ctx, stored.piece(0), stored.piece(stored.Pieces))
	}
	// Pieces of later positions may be another sharder's that is at it right now.
	if err := e.remove(ctx, piecePrefix, fmt.Sprintf("%s%016x/", piecePrefix, c.Position)); err != nil {
		return err
	}
	_, err = e.kv.Compact(ctx, &pb.CompactionRequest{Revision: c.Position})
	if isEtcd(err, rpctypes.ErrGRPCCompacted) {
		err = nil
	}
	return err
}

func (e *Etcd) remove(ctx context.Context, from, end string) error {
	_, err := e.kv.DeleteRange(ctx, &pb.DeleteRangeRequest{Key: []byte(from), RangeEnd: []byte(end)})
	return err
}

// publish writes the notice of a checkpoint whose pieces are there. It doesn't if there
// is one of a later position, or one that was swept later.
func (e *Etcd) publish(ctx context.Context, c storedCheckpoint) (bool, error) {
	for {
		r, err := e.kv.Range(ctx, rangeOp(checkpointKey, "", 0))
		if err != nil {
			return false, err
		}
		var mod int64
		if len(r.Kvs) > 0 {
			have, err := parseCheckpoint(r.Kvs[0])
			if err != nil || have.Position > c.Position || have.Swept > c.Swept {
				return false, err
			}
			mod = r.Kvs[0].ModRevision
		}
		t, err := e.kv.Txn(ctx, &pb.TxnRequest{
			Compare: []*pb.Compare{{Key: []byte(checkpointKey), Target: pb.Compare_MOD, Result: pb.Compare_EQUAL, TargetUnion: &pb.Compare_ModRevision{ModRevision: mod}}},
			Success: []*pb.RequestOp{putOp(checkpointKey, c.encode())},
		})
		if err != nil || t.Succeeded {
			return err == nil, err
		}
	}
}

func (c storedCheckpoint) encode() []byte {
	b, _ := json.Marshal(c) // numbers: can't fail
	return b
}
