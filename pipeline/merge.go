package pipeline

import "context"

// Merge runs several sources into one: values come in the order of their arrival,
// those of one source in its own order. One source runs on the caller's goroutine,
// several have one each and share the channel without an extra hop.
//
// It ends when all of them have ended. The first error cancels the others, they are
// waited for, and it is returned; what they had sent before stays sent.
func Merge[O any](srcs ...Source[O]) Source[O] {
	return func(ctx context.Context, out chan<- O) error {
		switch len(srcs) {
		case 0:
			return nil
		case 1:
			return srcs[0](ctx, out)
		}
		return branches(ctx, len(srcs), func(ctx context.Context, i int) error {
			return srcs[i](ctx, out)
		})
	}
}
