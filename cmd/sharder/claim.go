package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/status"

	"github.com/sharder/sharder/stages"
	"github.com/sharder/sharder/stages/backend"
)

// Before a shard is used it must be ours: stamped with the routes of this
// configuration, or not stamped at all and then stamped now; and it must hold no key
// that these routes look for elsewhere.

// claimTimeout bounds one round over all stamps. Looking for misplaced keys takes as long
// as it takes.
const claimTimeout = 10 * time.Second

// claimPause is the time between two attempts while a shard is out of reach.
const claimPause = time.Second

// claim opens the gates. A single shard without order is not stamped: there is nothing
// to disagree about, and nothing is written that a client did not write.
//
// more says that a shard was out of reach and claim must be called again; those that
// could be checked are open then. An error is final: a stamp or a key speaks against us.
func (f *fleet) claim(ctx context.Context, log *slog.Logger) (more bool, err error) {
	switch {
	case f.central != nil:
		return f.claimOrdered(ctx, log)
	case len(f.gates) == 1:
		f.gates[0].open.Store(true)
		return false, nil
	}
	found, err := f.readStamps(ctx)
	if err != nil {
		return false, err
	}
	if err := f.examine(ctx, found, false); err != nil {
		return false, err
	}
	for i := range f.shards {
		if found.stamped[i] && found.unreached[i] == nil {
			f.gates[i].open.Store(true)
		}
	}
	for i, why := range found.unreached {
		f.gates[i].keep(why)
		log.Warn("shard is out of reach; its keys are refused until its stamp can be checked", "shard", f.shards[i].Name, "error", why)
	}
	if len(found.unreached) > 0 {
		return true, nil
	}
	ctx, cancel := context.WithTimeout(ctx, claimTimeout)
	defer cancel()
	switch _, err := backend.Claim(ctx, f.conns(), f.stamps()); {
	case outOfReach(err):
		log.Warn("the shards could not all be stamped yet", "error", err)
		return true, nil
	case err != nil:
		return false, err
	}
	for _, g := range f.gates {
		g.open.Store(true)
	}
	return false, nil
}

// survey is what one round over all shards has found.
type survey struct {
	stamped    map[int]bool
	unreached  map[int]error // why those were out of reach that were
	deployment string        // what the stamps say; empty if there is none
}

// examine checks those shards that have no open gate yet: their version, that they hold
// no key which belongs elsewhere, and, of a deployment that has begun, that they are
// stamped. Those that went out of reach meanwhile are noted in found.
func (f *fleet) examine(ctx context.Context, found *survey, begun bool) error {
	for i, s := range f.shards {
		if found.unreached[i] != nil || f.gates[i].open.Load() {
			continue
		}
		if begun && !found.stamped[i] {
			return fmt.Errorf("shard %s has no stamp, but the order log knows it: it lost its data, or it is another cluster than the one that the deployment began with; correct the endpoints of [shards.%s], or restore it, see docs/operations.md", s.Name, s.Name)
		}
		err := f.clusters[i].CheckVersion(ctx)
		if err == nil {
			err = f.misplaced(ctx, i, !found.stamped[i])
		}
		switch {
		case outOfReach(err):
			found.unreached[i] = err
		case err != nil:
			return err
		}
	}
	return nil
}

// outOfReach tells a shard that did not answer from one whose answer speaks against us.
func outOfReach(err error) bool {
	var carrier interface{ GRPCStatus() *status.Status }
	var mismatch *backend.StampMismatch
	return errors.As(err, &carrier) && !errors.As(err, &mismatch)
}

// settle does what is left after the first claim: it looks how wide the shards are, and
// claims those that were out of reach, until every gate is open, ctx ends, or a stamp
// speaks against us.
func (f *fleet) settle(ctx context.Context, more bool, clientBytes int, log *slog.Logger) (err error) {
	for {
		f.checkWidth(ctx, clientBytes, log)
		if !more {
			return nil
		}
		select {
		case <-time.After(claimPause):
		case <-ctx.Done():
			return nil
		}
		if more, err = f.claim(ctx, log); err != nil {
			if ctx.Err() != nil {
				return nil
			}
			return err
		}
	}
}

// checkWidth looks whether the shards with an open gate take larger requests than clients
// may send, and says what to set where they don't. Only with one order does sharder wrap
// what clients send.
func (f *fleet) checkWidth(ctx context.Context, clientBytes int, log *slog.Logger) {
	for i, s := range f.shards {
		if f.central == nil || f.width[i] || !f.gates[i].open.Load() {
			continue
		}
		f.width[i] = true
		step, cancel := context.WithTimeout(ctx, claimTimeout)
		l, err := backend.CheckLimits(step, f.clusters[i], clientBytes)
		cancel()
		switch {
		case err != nil:
			log.Info("could not look how large requests the shard takes", "shard", s.Name, "error", err)
		case !l.Enough():
			log.Warn("the shard takes no larger requests than clients may send, so those near the limit are refused, as sharder adds to them; start its members with the flags", "shard", s.Name, "flags", l.Flags())
		}
	}
}

// readStamps reads the stamps of all shards that can be reached; one that is not ours
// is an error.
func (f *fleet) readStamps(ctx context.Context) (*survey, error) {
	ctx, cancel := context.WithTimeout(ctx, claimTimeout)
	defer cancel()
	s := &survey{stamped: map[int]bool{}, unreached: map[int]error{}}
	var faults []error
	for i, want := range f.stamps() {
		want.Deployment = s.deployment
		got, found, err := backend.LookupStamp(ctx, f.clusters[i], want)
		switch {
		case outOfReach(err):
			s.unreached[i] = err
		case err != nil:
			faults = append(faults, err)
		case found:
			s.stamped[i], s.deployment = true, got.Deployment
		}
	}
	return s, errors.Join(faults...)
}

func (f *fleet) conns() []grpc.ClientConnInterface {
	conns := make([]grpc.ClientConnInterface, len(f.clusters))
	for i, c := range f.clusters {
		conns[i] = c
	}
	return conns
}

func (f *fleet) stamps() []backend.Stamp {
	stamps := make([]backend.Stamp, len(f.shards))
	for i, s := range f.shards {
		stamps[i] = f.stampOf(s.Name)
	}
	return stamps
}

// stampOf is the stamp of a shard, or of the order cluster, but for the deployment.
func (f *fleet) stampOf(name string) backend.Stamp {
	s := backend.Stamp{Shard: name, Fingerprint: f.table.Fingerprint(), Home: f.shards[0].Name, Routes: f.table.Describe()}
	if f.central != nil {
		s.Home, s.Shards = f.central.home.Name, f.names()
	}
	return s
}

// names are those of the shards, by number.
func (f *fleet) names() []string {
	names := make([]string, len(f.shards))
	for i, s := range f.shards {
		names[i] = s.Name
	}
	return names
}

// misplaced looks for a key on a shard that the routes look for elsewhere. Keys spread
// by hash must be read one by one; that is done once, before the shard is stamped.
func (f *fleet) misplaced(ctx context.Context, i int, fresh bool) error {
	s := f.shards[i]
	foreign, hashed := f.table.Elsewhere(s)
	key, err := backend.Misplaced(ctx, f.clusters[i], keyRanges(foreign))
	if err != nil {
		return err
	}
	for _, r := range hashed {
		if key != nil || !fresh {
			break
		}
		key, err = backend.MisplacedHash(ctx, f.clusters[i], r.Key, r.End, func(k []byte) bool { return f.table.Lookup(k) == s })
		if err != nil {
			return err
		}
	}
	if key != nil {
		return fmt.Errorf("shard %s holds the key %q, which the routes look for on shard %s: nobody would find it there; move or delete it, or change [routes]",
			s.Name, key, f.table.Lookup(key).Name)
	}
	return nil
}

func keyRanges(spans []stages.Span) []backend.KeyRange {
	out := make([]backend.KeyRange, len(spans))
	for i, s := range spans {
		out[i] = backend.KeyRange(s)
	}
	return out
}
