package stages

import "context"

// ownKey is the context key of what is sharder's own.
type ownKey struct{}

// Own marks the calls under a context as sharder's own: not made for a client, and not
// telling a client anything. With one shard, whose clients answer for themselves, only
// such calls may carry the credentials that sharder was given for itself (package
// backend). A call that is made on a client's behalf, in however many steps, must never
// have it.
func Own(ctx context.Context) context.Context {
	return context.WithValue(ctx, ownKey{}, true)
}

// IsOwn reports whether the context's calls are sharder's own.
func IsOwn(ctx context.Context) bool { return ctx.Value(ownKey{}) != nil }
