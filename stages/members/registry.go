package members

import (
	"context"
	"log/slog"
	"strings"
	"sync/atomic"
	"time"

	"google.golang.org/grpc/status"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
)

const (
	// LeaveTimeout bounds how long a sharder that drains tries to take its records back.
	// Those that it can't end with their lease.
	LeaveTimeout = 2 * time.Second
	// callTimeout bounds one call.
	callTimeout = 5 * time.Second
	// firstPause and lastPause are between attempts to register: it doubles.
	firstPause, lastPause = time.Second, 8 * time.Second
	// most is how many records are read: nobody has more sharders, and what else is under
	// the prefix must not fill the memory.
	most = 1000
)

// Options say where a [Registry] is.
type Options struct {
	// KV and Lease are how it is read and written. The calls are sharder's own ([stages.Own]).
	KV    pb.KVClient
	Lease pb.LeaseClient
	// Prefix and a "/" stand before the address in each key.
	Prefix string
	// TTL is how long a sharder that died stays in it, in whole seconds.
	TTL time.Duration
	// LeaseID draws the id of a lease; nil leaves it to the cluster.
	LeaseID func() int64
	Logger  *slog.Logger
}

// Registry is where sharders register, and this sharder's place in it. Its owner runs Run
// and waits for it; reading needs no Run, and may happen before, during and after.
type Registry struct {
	o       Options
	self    Self
	records map[string][]byte // by address; of this sharder
	left    atomic.Bool       // this sharder is leaving its clients
}

// NewRegistry prepares a registry, and asks nobody. A sharder without addresses only reads.
func NewRegistry(o Options, self Self) *Registry {
	return &Registry{o: o, self: self, records: self.records()}
}

// Run keeps this sharder registered until ctx ends. Then it takes its records back, for
// LeaveTimeout at most, and returns. What goes wrong on the way is logged, and tried again.
func (r *Registry) Run(ctx context.Context) {
	defer r.left.Store(true)
	if len(r.records) == 0 {
		<-ctx.Done()
		return
	}
	pause, told := firstPause, ""
	for ctx.Err() == nil {
		held, err := r.hold(ctx)
		if ctx.Err() != nil {
			return
		}
		if held {
			pause, told = firstPause, ""
		}
		if text := status.Convert(err).Message(); text != told {
			told = text
			r.o.Logger.Warn("this sharder is not registered; it goes on trying", "prefix", r.shown(), "error", err)
		}
		sleep(ctx, pause)
		pause = min(2*pause, lastPause)
	}
}

// hold registers, and returns when that is lost, or ctx ends: then with the records taken
// back. held tells whether it had succeeded.
func (r *Registry) hold(ctx context.Context) (held bool, err error) {
	id, ttl, err := r.grant(ctx)
	if err != nil {
		return false, err
	}
	defer func() {
		if ctx.Err() != nil {
			r.left.Store(true)
		}
		if ctx.Err() != nil || !held {
			r.revoke(context.WithoutCancel(ctx), id)
		}
	}()
	if err := r.write(ctx, id, false); err != nil {
		return false, err
	}
	r.o.Logger.Info("registered", "prefix", r.shown(), "addresses", strings.Join(r.self.Addresses, ", "))
	return true, r.keep(ctx, id, ttl)
}

// keep renews the lease, and looks after the records, until the lease is lost.
func (r *Registry) keep(ctx context.Context, id int64, ttl time.Duration) error {
	until := time.Now().Add(ttl)
	for sleep(ctx, ttl/3) {
		began := time.Now()
		left, err := r.renew(ctx, id)
		switch {
		case err == nil && left <= 0:
			return errLost
		case err == nil:
			until = began.Add(left)
			err = r.write(ctx, id, true)
		}
		if err != nil && time.Now().After(until) {
			return err
		}
	}
	return ctx.Err()
}

// shown is the prefix for people.
func (r *Registry) shown() string { return strings.ReplaceAll(r.o.Prefix, "\x00", `\x00`) }

// sleep waits; false says that ctx ended.
func sleep(ctx context.Context, d time.Duration) bool {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
		return true
	case <-ctx.Done():
		return false
	}
}
