package stages

import "context"

// Role is a part that a member plays in its cluster.
type Role int

// The roles a call can be for.
const (
	AnyRole      Role = iota // whichever member
	RoleLeader               // the leader; an error if there is none that is known
	RoleFollower             // a member that does not lead, if one answers; else whichever
)

// Want says which member of a cluster a call is for, where that is not to be left to the
// cluster (package backend): for requests that are about one member, such as a
// defragmentation or a hash. The zero value is whichever.
type Want struct {
	// Member is an endpoint (host:port) or the id of a member in hex, as etcdctl prints it.
	// A call for it reaches this member or fails, with an error that names the members
	// there are; it is never made elsewhere. Role has no meaning then.
	Member string
	Role   Role
}

// wantKey is the context key of a Want.
type wantKey struct{}

// Ask gives a context under which calls and streams go to the member that is wanted. It is
// for one cluster; where calls are not spread over members it has no effect.
func Ask(ctx context.Context, w Want) context.Context {
	return context.WithValue(ctx, wantKey{}, w)
}

// WantOf gives what the context's calls want; the zero value if nothing was said.
func WantOf(ctx context.Context) Want {
	w, _ := ctx.Value(wantKey{}).(Want)
	return w
}
