package pipeline

import (
	"context"
	"errors"
)

// MergeSources merges streams of sorted pages into one stream of sorted pages. The
// values of each source, page after page, must be sorted by cmp; then those of the
// result are, and of values that compare equal, those of an earlier source come first.
//
// Every source has a goroutine and a channel of capacity n (0 or more), so the merge
// holds at most n+1 pages of each, and the page it is building, however long the
// streams are. A source that is far ahead waits. One source alone runs
// on the caller's goroutine, its pages untouched.
//
// Pages of the result are handed over: whoever receives one may keep it. A page that
// lies wholly before everything else is passed on without copying; otherwise a new one
// is filled, up to the length of the shortest page at hand, so that it holds no more of
// any source than one or two of its pages do. It is sent earlier if the merge would have
// to wait for a source. Empty pages are dropped.
//
// When a source fails, the values before its end are merged and sent, nothing that
// might belong behind a missing one is, and its error is returned. The same holds for
// a panic, which then reaches the caller.
func MergeSources[T any](cmp func(a, b T) int, n int, srcs ...Source[[]T]) Source[[]T] {
	return func(ctx context.Context, out chan<- []T) error {
		switch len(srcs) {
		case 0:
			return nil
		case 1:
			return srcs[0](ctx, out)
		}
		m := &pageMerge[T]{out: out, fresh: make([]bool, len(srcs)), lens: make([]int, len(srcs))}
		for _, src := range srcs {
			m.ups = append(m.ups, start(ctx, src, n))
		}
		err := m.run(ctx, cmp)
		for _, up := range m.ups {
			if up.panicked != nil {
				panic(innermost(up.panicked))
			}
		}
		return err
	}
}

// errPanicked ends a merge whose source panicked. Nobody sees it: the panic follows.
var errPanicked = errors.New("sharder: source panicked")

// pageMerge is one running MergeSources.
type pageMerge[T any] struct {
	ups   []*upstream[[]T]
	out   chan<- []T
	tree  *loserTree[T]
	fresh []bool // whether nothing of the source's current page has been taken
	page  []T    // what is being built
	lens  []int  // length of each source's current page as it came, 0 behind the last
	size  int    // the shortest of them
}

// run merges until every source has ended or one has failed, then stops them all.
func (m *pageMerge[T]) run(ctx context.Context, cmp func(a, b T) int) (err error) {
	defer m.stop()
	heads := make([][]T, len(m.ups))
	for i := range m.ups {
		if heads[i], err = m.next(ctx, i); err != nil {
			return err
		}
	}
	m.tree = newLoserTree(cmp, heads)
	for {
		w := m.tree.winner()
		if len(m.tree.heads[w]) == 0 {
			return m.flush(ctx)
		}
		if err := m.take(ctx, w); err != nil {
			return err
		}
	}
}

// take moves the least value, or the whole page it begins, to the output.
func (m *pageMerge[T]) take(ctx context.Context, w int) error {
	heads := m.tree.heads
	if m.fresh[w] && m.alone(w) {
		if err := m.flush(ctx); err != nil {
			return err
		}
		if err := Emit(ctx, m.out, heads[w]); err != nil {
			return err
		}
		heads[w] = nil
	} else {
		if m.page == nil {
			m.page = make([]T, 0, m.size)
		}
		m.page = append(m.page, heads[w][0])
		heads[w], m.fresh[w] = heads[w][1:], false
		if len(m.page) >= m.size {
			if err := m.flush(ctx); err != nil {
				return err
			}
		}
	}
	if len(heads[w]) == 0 {
		page, err := m.next(ctx, w)
		if err != nil {
			return err
		}
		heads[w] = page
	}
	m.tree.replay(w)
	return nil
}

// alone says whether all of the winner's page comes before the head of every other.
func (m *pageMerge[T]) alone(w int) bool {
	s := m.tree.second()
	page, other := m.tree.heads[w], m.tree.heads[s]
	if len(other) == 0 {
		return true
	}
	c := m.tree.cmp(page[len(page)-1], other[0])
	return c < 0 || c == 0 && w < s
}

// next is the next page of source i with anything in it, nil at its end. What has been
// merged so far is sent before it waits.
func (m *pageMerge[T]) next(ctx context.Context, i int) ([]T, error) {
	up := m.ups[i]
	for {
		var page []T
		var more bool
		select {
		case page, more = <-up.ch:
		default:
			if err := m.flush(ctx); err != nil {
				return nil, err
			}
			select {
			case page, more = <-up.ch:
			case <-ctx.Done():
				return nil, context.Cause(ctx)
			}
		}
		if !more {
			m.came(i, 0)
			return nil, m.end(ctx, up)
		}
		if len(page) > 0 {
			m.came(i, len(page))
			return page, nil
		}
	}
}

// came notes that source i is at a page of n values.
func (m *pageMerge[T]) came(i, n int) {
	m.fresh[i], m.lens[i], m.size = true, n, 0
	for _, n := range m.lens {
		if n > 0 && (m.size == 0 || n < m.size) {
			m.size = n
		}
	}
}

// end says how a source whose channel is closed has ended. Before an error all that
// was merged is sent.
func (m *pageMerge[T]) end(ctx context.Context, up *upstream[[]T]) error {
	if up.ended && up.err == nil {
		return nil
	}
	if err := m.flush(ctx); err != nil {
		return err
	}
	if !up.ended {
		return errPanicked
	}
	return up.err
}

// flush sends the page that is being built, if there is anything in it.
func (m *pageMerge[T]) flush(ctx context.Context) error {
	if len(m.page) == 0 {
		return nil
	}
	page := m.page
	m.page = nil
	return Emit(ctx, m.out, page)
}

// stop cancels every source, then waits for all.
func (m *pageMerge[T]) stop() {
	for _, up := range m.ups {
		up.leave()
	}
	for _, up := range m.ups {
		up.stop()
	}
}
