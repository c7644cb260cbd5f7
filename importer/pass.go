package importer

import (
	"bytes"
	"context"
	"errors"
	"time"
)

// A chunk is what is written between two changes of the record.
const (
	chunkKeys  = 1000
	chunkBytes = 4 << 20
)

// saveTimeout bounds the last change of the record when ctx has ended.
const saveTimeout = 5 * time.Second

// scans are both sides of a range: the source at the round's revision, the target at
// one of its own, or as it is now.
func (r *run) scans(s span, target int64) (src, dst scan) {
	src = scan{kv: r.Source.KV, span: s, revision: r.rec.Revision, side: "source", retry: r.retry}
	dst = scan{kv: r.Target.KV, span: s, revision: target, side: "target", retry: r.retry}
	return src, dst
}

// look goes through both sides and counts what there is to do. In a dry run that is the
// result; before an import only conflicts matter, and an empty target has none.
func (r *run) look(ctx context.Context, total int64) error {
	have, err := r.count(ctx, r.Target.KV, "target", r.span, 0)
	if err != nil {
		return err
	}
	if r.Mode != DryRun && have.Count == 0 && !r.judge.complete {
		return nil
	}
	r.Progress.begin("looking", 0, total)
	plan := &Plan{}
	src, dst := r.scans(r.span, 0)
	err = join(ctx, src, dst, func(p pair) error {
		if p.src != nil {
			r.Progress.add(1, size(p.src))
		}
		if r.Mode == DryRun && p.src != nil && p.src.Lease != 0 {
			l, err := r.leases.look(ctx, p.src.Lease)
			if err != nil {
				return err
			}
			if plan.lease(p.src.Lease, l.ended); l.ended {
				return nil
			}
		}
		plan.add(r.judge.judge(p), p)
		return nil
	})
	if err != nil {
		return err
	}
	r.report.Plan = plan
	if plan.Conflicts > 0 {
		return &ConflictError{Count: plan.Conflicts, First: plan.FirstConflict}
	}
	return nil
}

// bring writes what the round has to write.
func (r *run) bring(ctx context.Context, total int64) error {
	p := &pass{run: r}
	if r.rec.Phase == phaseCopy {
		done, err := r.behind(ctx)
		if err != nil {
			return err
		}
		r.Progress.begin("copying", done, total)
		if err := p.over(ctx, r.span.from(r.rec.Next)); err != nil {
			return err
		}
		r.rec.Phase, r.rec.Next, r.rec.Ahead = phaseLeases, nil, nil
	}
	if r.rec.Leased {
		p.leased = true
		r.Progress.begin("leases", 0, total)
		if err := p.over(ctx, r.span); err != nil {
			return err
		}
	}
	if p.conflicts > 0 {
		// What is done is to be looked at again.
		r.rec.Phase, r.rec.Next = phaseCopy, nil
		if err := r.records.save(ctx, r.rec); err != nil {
			return err
		}
		return &ConflictError{Count: p.conflicts, First: p.first, Written: true}
	}
	return nil
}

// behind is how many keys this round has behind it.
func (r *run) behind(ctx context.Context) (int64, error) {
	if bytes.Compare(r.rec.Next, r.span.key) <= 0 {
		return 0, nil
	}
	c, err := r.count(ctx, r.Source.KV, "source", span{r.span.key, r.rec.Next}, r.rec.Revision)
	return c.GetCount(), err
}

// pass goes through the keys once and writes those without a lease, or those with one.
type pass struct {
	*run
	leased bool

	chunk     []write
	bytes     int64
	conflicts int64
	first     []byte // of the conflicts
}

// over passes over a range. Whatever happens, the record says afterwards how far it came.
func (p *pass) over(ctx context.Context, s span) error {
	src, dst := p.scans(s, 0)
	err := join(ctx, src, dst, func(one pair) error { return p.each(ctx, one) })
	if err == nil {
		err = p.flush(ctx)
	}
	p.chunk, p.bytes = nil, 0
	if err == nil || errors.Is(err, errTakenOver) {
		return err
	}
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), saveTimeout)
	defer cancel()
	_ = p.records.save(ctx, p.rec) // the record before it does, too; it only goes less far
	return err
}

// each takes one key.
func (p *pass) each(ctx context.Context, one pair) error {
	if leased := one.src != nil && one.src.Lease != 0; leased != p.leased {
		p.rec.Leased = p.rec.Leased || leased
		if one.src != nil {
			p.Progress.add(1, 0)
		}
		return nil
	}
	switch p.judge.judge(one) {
	case same:
		p.Progress.add(1, size(one.src))
	case put:
		p.add(putOf(one))
	case remove:
		p.add(removeOf(one))
	case conflict:
		p.conflict(one.key())
	}
	if len(p.chunk) < chunkKeys && p.bytes < chunkBytes {
		return nil
	}
	return p.flush(ctx)
}

func (p *pass) add(w write) {
	p.chunk = append(p.chunk, w)
	p.bytes += w.bytes()
}

func (p *pass) conflict(key []byte) {
	if p.conflicts++; p.first == nil || bytes.Compare(key, p.first) < 0 {
		p.first = key
	}
}

// flush writes the chunk: the record first, which says that it may be half done.
func (p *pass) flush(ctx context.Context) error {
	if len(p.chunk) == 0 {
		return nil
	}
	last := p.chunk[len(p.chunk)-1].key
	p.rec.Next, p.rec.Ahead = p.chunk[0].key, last
	if err := p.records.save(ctx, p.rec); err != nil {
		return err
	}
	if err := p.holdLeases(ctx); err != nil {
		return err
	}
	done, err := p.writer.send(ctx, p.chunk)
	p.rec.Puts, p.rec.Deletes, p.rec.Bytes = p.rec.Puts+done.puts, p.rec.Deletes+done.deletes, p.rec.Bytes+done.bytes
	p.rec.Written = max(p.rec.Written, done.revision)
	for _, key := range done.conflicts {
		p.conflict(key)
	}
	if err != nil {
		return err
	}
	p.rec.Next = after(last)
	p.chunk, p.bytes = p.chunk[:0], 0
	return nil
}

// holdLeases grants what the chunk needs, and leaves out what needs a lease that has ended.
func (p *pass) holdLeases(ctx context.Context) error {
	if !p.leased {
		return nil
	}
	kept := p.chunk[:0]
	for _, w := range p.chunk {
		held, err := p.leases.hold(ctx, w.lease)
		if err != nil {
			return err
		}
		if held {
			kept = append(kept, w)
		}
	}
	p.chunk = kept
	return nil
}
