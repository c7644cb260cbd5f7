package pipeline

import "slices"

// linearUpTo is the largest number of lists for which looking at every head is as
// quick as a tournament (BenchmarkLinearOrTree).
const linearUpTo = 4

// MergeSorted merges lists that are each sorted by cmp into one that is. cmp returns
// a negative number, zero or a positive one, as for slices.SortFunc. The merge is
// stable: of values that compare equal, those of an earlier list come first.
//
// Lists that do not interleave are concatenated, in whichever order they belong; one
// list alone is returned as it is, not copied. The lists are not written to.
// Without any values the result is nil.
func MergeSorted[T any](cmp func(a, b T) int, lists ...[]T) []T {
	total := 0
	heads := make([][]T, 0, len(lists))
	for _, l := range lists {
		if len(l) > 0 {
			heads = append(heads, l)
			total += len(l)
		}
	}
	switch len(heads) {
	case 0:
		return nil
	case 1:
		return slices.Clip(heads[0])
	}
	if order := disjoint(cmp, heads); order != nil {
		return concat(total, heads, order)
	}
	if len(heads) <= linearUpTo {
		return mergeLinear(cmp, total, heads)
	}
	return mergeTree(cmp, total, heads)
}

// disjoint returns the order in which the lists follow each other without
// overlapping, nil if they do overlap. No list is empty.
func disjoint[T any](cmp func(a, b T) int, lists [][]T) []int {
	order := make([]int, len(lists))
	for i := range order {
		order[i] = i
	}
	slices.SortStableFunc(order, func(a, b int) int { return cmp(lists[a][0], lists[b][0]) })
	for i := 1; i < len(order); i++ {
		a, b := order[i-1], order[i]
		c := cmp(lists[a][len(lists[a])-1], lists[b][0])
		if c > 0 || c == 0 && a > b {
			return nil
		}
	}
	return order
}

// concat puts the lists behind each other in the given order.
func concat[T any](total int, lists [][]T, order []int) []T {
	out := make([]T, 0, total)
	for _, i := range order {
		out = append(out, lists[i]...)
	}
	return out
}

// mergeLinear looks at every head for every value. heads is used up.
func mergeLinear[T any](cmp func(a, b T) int, total int, heads [][]T) []T {
	out := make([]T, 0, total)
	for len(heads) > 1 {
		least := 0
		for i := 1; i < len(heads); i++ {
			if cmp(heads[i][0], heads[least][0]) < 0 {
				least = i
			}
		}
		out = append(out, heads[least][0])
		if heads[least] = heads[least][1:]; len(heads[least]) == 0 {
			heads = slices.Delete(heads, least, least+1)
		}
	}
	return append(out, heads[0]...)
}

// mergeTree merges by a tournament. heads is used up.
func mergeTree[T any](cmp func(a, b T) int, total int, heads [][]T) []T {
	out := make([]T, 0, total)
	t := newLoserTree(cmp, heads)
	for range total {
		w := t.winner()
		out = append(out, t.heads[w][0])
		t.heads[w] = t.heads[w][1:]
		t.replay(w)
	}
	return out
}
