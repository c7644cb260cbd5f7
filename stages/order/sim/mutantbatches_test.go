package sim

import (
	"cmp"
	"context"
	"encoding/binary"
	"encoding/json"
	"slices"
	"time"

	"github.com/sharder/sharder/pipeline"
	"github.com/sharder/sharder/stages"
	"github.com/sharder/sharder/stages/order"
	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
)

// batchMutants break the rules of transactions over several shards.
var batchMutants = []mutant{
	{name: "fence-ignored", why: "writes don't look for a fence", parts: bending(func(t *pb.TxnRequest) {
		if len(t.Failure) > 0 && len(t.Success) == 1 && compares(t, order.RoutesKey) && !compares(t, stages.ClosedKey) {
			forgo(t, stages.FenceKey)
		}
	})},
	{name: "fence-reenters", why: "a fence is put without looking at the newest closed id", parts: bending(func(t *pb.TxnRequest) {
		if len(t.Success) == 1 && puts(t, stages.FenceKey) {
			forgo(t, stages.ClosedKey)
		}
	})},
	{name: "step-unguarded", why: "a step is done without looking at the fence", parts: bending(func(t *pb.TxnRequest) {
		if puts(t, stages.FenceKey) != puts(t, stages.ClosedKey) && !compares(t, stages.ClosedKey) && !compares(t, order.RoutesKey) {
			forgo(t, stages.FenceKey)
		}
	})},
	{name: "rollback-skips", why: "a roll-back records its id only where there is a fence", parts: bending(func(t *pb.TxnRequest) {
		if len(t.Success) == 1 && puts(t, stages.ClosedKey) {
			t.Success = []*pb.RequestOp{get(&pb.RangeRequest{Key: []byte(stages.ClosedKey)})}
		}
	})},
	{name: "read-pending", why: "a reader doesn't wait for what is pending", parts: func(s *sharder) { s.at = impatient(s) }},
	{name: "lease-apart", why: "a lease ends on each shard by itself", parts: func(s *sharder) {
		s.endLease = func(ctx context.Context, shards []*stages.Shard, id int64, _ bool) (err error) {
			for _, sh := range shards {
				err = cmp.Or(err, s.EndLease(ctx, []*stages.Shard{sh}, id, false))
			}
			return err
		}
	}},
	{name: "lease-unpinned", why: "a lease on one shard ends at any time, also between a fence and the end of its batch", parts: unpinned},
	{name: "open-twice", why: "a batch that got no answer is opened under a new name", options: journals(func(w *world, j order.Journal) order.Journal {
		return doubling{j, w.dice}
	})},
	{name: "cover-pinned", why: "every cover counts on a pinned shard", options: journals(func(_ *world, j order.Journal) order.Journal {
		return bent{j, func(e []byte) [][]byte { return [][]byte{asWritten(e)} }}
	})},
	{name: "close-unapplied", why: "a batch is closed before its shards have answered", options: journals(func(w *world, j order.Journal) order.Journal {
		return bent{j, func(e []byte) [][]byte { return closedAtOnce(e) }}
	})},
	{name: "fence-numbered", why: "a fence that was rolled back gets a revision", options: journals(func(_ *world, j order.Journal) order.Journal {
		return bent{j, func(e []byte) [][]byte {
			return reworded(e, closedKind, func(c *order.Closed) {
				for i, end := range c.Ends {
					if len(end.Steps) == 0 {
						c.Ends[i].Fence = 0
					}
				}
			})
		}}
	})},
	{name: "steps-lost", why: "who closes takes the newest revision for that of every step", options: journals(func(_ *world, j order.Journal) order.Journal {
		return bent{j, func(e []byte) [][]byte {
			return reworded(e, closedKind, func(c *order.Closed) {
				for _, end := range c.Ends {
					for k := range end.Steps {
						end.Steps[k] = end.Steps[len(end.Steps)-1]
					}
				}
			})
		}}
	})},
	{name: "writes-forgotten", why: "a decision leaves out a shard that is written", options: journals(func(_ *world, j order.Journal) order.Journal {
		return bent{j, func(e []byte) [][]byte {
			return reworded(e, decidedKind, func(d *order.Decided) {
				for i, item := range d.Items {
					if len(item.Writes) > 1 {
						d.Items[i].Writes = item.Writes[1:]
					}
				}
			})
		}}
	})},
	{name: "path-turned", why: "a decision says of a compare that failed that it held", options: journals(func(_ *world, j order.Journal) order.Journal {
		return bent{j, func(e []byte) [][]byte {
			return reworded(e, decidedKind, func(d *order.Decided) {
				for i, item := range d.Items {
					if len(item.Path) == 1 && item.Error == "" {
						d.Items[i].Path[0] = true
					}
				}
			})
		}}
	})},
}

// unpinned ends leases on one shard without a batch.
func unpinned(s *sharder) {
	s.endLease = func(ctx context.Context, shards []*stages.Shard, id int64, withOthers bool) error {
		if len(shards) > 1 {
			return s.EndLease(ctx, shards, id, withOthers)
		}
		r, err := pb.NewLeaseClient(shards[0].Conn).LeaseRevoke(ctx, &pb.LeaseRevokeRequest{ID: id})
		if isError(err, errNoLease) {
			return nil
		}
		if err == nil {
			err = s.Cover(ctx, shards[0].Number, r.Header.Revision)
		}
		return err
	}
}

// bending has the Txns of a sharder changed on their way to the shards.
func bending(bend func(*pb.TxnRequest)) func(*sharder) {
	return func(s *sharder) {
		for _, c := range s.conns {
			c.bend = bend
		}
	}
}

func compares(t *pb.TxnRequest, key string) bool {
	return slices.ContainsFunc(t.Compare, func(c *pb.Compare) bool { return string(c.Key) == key })
}

func puts(t *pb.TxnRequest, key string) bool {
	return slices.ContainsFunc(t.Success, func(op *pb.RequestOp) bool { return string(op.GetRequestPut().GetKey()) == key })
}

// forgo takes the compares of a key out.
func forgo(t *pb.TxnRequest, key string) {
	t.Compare = slices.DeleteFunc(t.Compare, func(c *pb.Compare) bool { return string(c.Key) == key })
}

// impatient reads as if nothing was pending.
func impatient(s *sharder) pipeline.Middleware[stages.Call, stages.Reply] {
	right := s.at
	return func(next callStage) callStage {
		properly := right(next)
		return func(ctx context.Context, call stages.Call) (stages.Reply, error) {
			cut := *call.Op.Cut
			cut.Pending = nil
			call.Op = &stages.Op{Request: call.Op.Request, Whole: call.Op.Whole, Cut: &cut}
			return properly(ctx, call)
		}
	}
}

// journals puts another journal in the place of a sharder's.
func journals(other func(*world, order.Journal) order.Journal) func(*world, *order.Options) {
	return func(w *world, o *order.Options) { o.Journal = other(w, o.Journal) }
}

// bent appends other entries than it is given.
type bent struct {
	order.Journal
	bend func(entry []byte) [][]byte
}

func (j bent) Append(ctx context.Context, entry []byte) (pos int64, err error) {
	for _, e := range j.bend(entry) {
		if pos, err = j.Journal.Append(ctx, e); err != nil {
			return 0, err
		}
	}
	return pos, nil
}

// reworded is an entry of one kind with changes; others stay as they are.
func reworded[T any](e []byte, kind byte, change func(*T)) [][]byte {
	if e[1] != kind {
		return [][]byte{e}
	}
	v := parse[T](e)
	change(&v)
	text, _ := json.Marshal(v)
	return [][]byte{append(e[:2:2], text...)}
}

// asWritten makes a cover one of writes that found no fence.
func asWritten(e []byte) []byte {
	if e[1] != coverKind {
		return e
	}
	var shards []byte
	n := uint64(0)
	for b := e[2:]; len(b) > 0; n++ {
		shard, k := binary.Uvarint(b)
		_, m := binary.Uvarint(b[k:])
		shards, b = binary.AppendUvarint(shards, shard), b[k+m:]
	}
	return slices.Concat([]byte{2, writtenKind}, binary.AppendUvarint(nil, n), shards, e[2:])
}

// closedAtOnce adds an entry that closes to one that decides.
func closedAtOnce(e []byte) [][]byte {
	if e[1] != decidedKind {
		return [][]byte{e}
	}
	d := parse[order.Decided](e)
	c := order.Closed{ID: d.ID}
	for _, f := range d.At {
		end := order.End{Shard: f.Shard, Fence: f.Revision, Revision: f.Revision}
		for _, item := range d.Items {
			if slices.Contains(item.Writes, f.Shard) {
				end.Revision++
				end.Steps = append(end.Steps, end.Revision)
			}
		}
		c.Ends = append(c.Ends, end)
	}
	if d.RolledBack {
		return [][]byte{e}
	}
	text, _ := json.Marshal(c)
	return [][]byte{e, append([]byte{2, closedKind}, text...)}
}

// doubling opens a batch a second time, with another nonce, now and then.
type doubling struct {
	order.Journal
	dice *dice
}

func (j doubling) Open(ctx context.Context, entry []byte, until int64, nonce string, record []byte) (int64, error) {
	if j.dice.chance(.3) {
		other := parse[order.Open](entry)
		other.Nonce += "2"
		text, _ := json.Marshal(other)
		if _, err := j.Journal.Open(ctx, append(entry[:2:2], text...), until, other.Nonce, record); err != nil {
			return 0, err
		}
		time.Sleep(time.Millisecond)
	}
	return j.Journal.Open(ctx, entry, until, nonce, record)
}
