package importer

import (
	"context"
	"errors"
	"fmt"

	"go.etcd.io/etcd/api/v3/mvccpb"
)

// ErrDifferent says that the target is not what the source is; the report lists where.
var ErrDifferent = errors.New("the target differs from the source")

const (
	listed      = 10 // differences that are told one by one
	verifyTries = 5  // a target that compacts is verified at a newer revision
)

// verify compares the source at the round's revision with the target at one moment. An
// import that doesn't pass goes through all keys when it is run again.
func (r *run) verify(ctx context.Context, total int64) error {
	var v *verification
	for try := 1; ; try++ {
		head, err := r.head(ctx, r.Target.KV, "target")
		if err != nil {
			return err
		}
		v, err = r.compare(ctx, total, head.Revision)
		if err == nil {
			break
		}
		if try == verifyTries || !errors.Is(err, compactedError{"target"}) {
			return err
		}
	}
	if err := v.checkLeases(ctx, r.leases); err != nil {
		return err
	}
	ids, err := r.leases.list(ctx)
	if err != nil {
		return err
	}
	v.finish(r.report, ids)
	if r.report.Differences == 0 {
		return nil
	}
	if r.Mode == Import {
		r.rec.Phase, r.rec.Next, r.rec.Ahead = phaseCopy, nil, nil
		if err := r.records.save(ctx, r.rec); err != nil {
			return err
		}
	}
	return ErrDifferent
}

// compare is one attempt at a verification, without the leases' own TTLs.
func (r *run) compare(ctx context.Context, total, target int64) (*verification, error) {
	r.Progress.begin("verifying", 0, total)
	v := &verification{source: r.rec.Revision, target: target, ended: map[int64]int64{}, alive: map[int64]int64{}}
	src, dst := r.scans(r.span, target)
	err := join(ctx, src, dst, func(p pair) error {
		if p.src == nil {
			v.differ(p.key(), "only in the target")
			return nil
		}
		r.Progress.add(1, size(p.src))
		if p.src.Lease != 0 {
			l, err := r.leases.look(ctx, p.src.Lease)
			if err != nil {
				return err
			}
			if l.ended {
				v.ended[p.src.Lease]++
				if p.dst == nil {
					return nil // as it should be
				}
			} else {
				v.alive[p.src.Lease]++
			}
		}
		v.pair(p)
		return nil
	})
	return v, err
}

// verification is what a comparison found.
type verification struct {
	source, target int64
	keys, bytes    int64
	ended, alive   map[int64]int64 // keys by lease
	differences    int64
	first          []Difference
}

// Difference is one key on which source and target differ, or a lease.
type Difference struct {
	Key []byte // nil for a lease
	How string
}

func (v *verification) differ(key []byte, how string) {
	if v.differences++; len(v.first) < listed {
		v.first = append(v.first, Difference{Key: key, How: how})
	}
}

func (v *verification) pair(p pair) {
	v.keys++
	v.bytes += size(p.src)
	switch {
	case equal(p.src, p.dst):
	case p.dst == nil && p.src.Lease != 0:
		v.differ(p.key(), fmt.Sprintf("not in the target; its lease %x may have ended there", uint64(p.src.Lease)))
	case p.dst == nil:
		v.differ(p.key(), "not in the target")
	case p.src.Lease != p.dst.Lease:
		v.differ(p.key(), fmt.Sprintf("lease %x in the source, %x in the target", uint64(p.src.Lease), uint64(p.dst.Lease)))
	default:
		v.differ(p.key(), fmt.Sprintf("another value: %d bytes in the source, %d in the target", len(p.src.Value), len(p.dst.Value)))
	}
}

// checkLeases compares how long the leases live.
func (v *verification) checkLeases(ctx context.Context, l *leases) error {
	for id := range v.alive {
		want, err := l.look(ctx, id)
		if err != nil {
			return err
		}
		got, err := l.timeToLive(ctx, l.target, id)
		if err != nil {
			return fmt.Errorf("asking the target about the lease %x: %w", uint64(id), err)
		}
		if got.GrantedTTL < want.granted {
			v.differ(nil, fmt.Sprintf("lease %x: granted for %d s in the source, %d s in the target", uint64(id), want.granted, got.GrantedTTL))
		}
	}
	return nil
}

// finish writes the report. all are the source's leases.
func (v *verification) finish(r *Report, all []int64) {
	r.Verified, r.VerifiedAt = true, v.target
	r.Keys, r.KeyBytes, r.Differences, r.Listed = v.keys, v.bytes, v.differences, v.first
	r.Leases, r.EndedLeases, r.EmptyLeases = len(v.alive), len(v.ended), 0
	r.LeasedKeys, r.EndedKeys = sum(v.alive), sum(v.ended)
	for _, id := range all {
		if v.alive[id] == 0 && v.ended[id] == 0 {
			r.EmptyLeases++
		}
	}
}

func sum(counts map[int64]int64) (n int64) {
	for _, c := range counts {
		n += c
	}
	return n
}

// size is what a key-value counts for.
func size(kv *mvccpb.KeyValue) int64 { return int64(len(kv.Key) + len(kv.Value)) }
