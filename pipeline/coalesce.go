package pipeline

import "context"

// Coalesce makes groups out of single values: it waits for one, then adds what is
// already queued in the channel before it, without waiting, as long as the group's
// size stays within limit. So an idle stream has groups of one and no delay, and a
// reader who is behind gets larger groups instead of a longer queue.
//
// size says how much a value counts (bytes, events), at least 1 for each: less is taken
// as 1, or a group of nothings would have no end. nil counts every value as 1. A value
// that does not fit begins the next group; one larger than limit is a group of its
// own. Order is kept, groups are never empty, and each is a new slice that belongs to
// the receiver. The limit is at least 1, else Coalesce panics.
func Coalesce[T any](limit int, size func(T) int) Flow[T, []T] {
	if limit < 1 {
		panic("sharder: Coalesce: want a limit of at least 1")
	}
	if size == nil {
		size = func(T) int { return 1 }
	}
	return func(ctx context.Context, in <-chan T, out chan<- []T) error {
		next, ok := <-in
		for ok {
			var group []T
			var left bool
			group, next, left = gather(next, in, limit, size)
			if err := Emit(ctx, out, group); err != nil {
				return err
			}
			if !left {
				next, ok = <-in
			}
		}
		return nil
	}
}

// gather begins a group with first and adds what is queued. It stops at a value that
// does not fit and returns it, with left set; the end of in is for the caller to find.
func gather[T any](first T, in <-chan T, limit int, size func(T) int) (group []T, next T, left bool) {
	group = []T{first}
	for room := limit - max(1, size(first)); room > 0; {
		select {
		case v, ok := <-in:
			if !ok {
				return group, next, false
			}
			if room -= max(1, size(v)); room < 0 {
				return group, v, true
			}
			group = append(group, v)
		default:
			return group, next, false
		}
	}
	return group, next, false
}
