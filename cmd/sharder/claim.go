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
	if len(f.gates) == 1 {
		f.gates[0].open.Store(true)
		return false, nil
	}
	stamped, unreached, err := f.readStamps(ctx)
	if err != nil {
		return false, err
	}
	for i := range f.shards {
		if unreached[i] != nil || f.gates[i].open.Load() {
			continue
		}
		switch err := f.misplaced(ctx, i, !stamped[i]); {
		case outOfReach(err):
			unreached[i] = err
		case err != nil:
			return false, err
		case stamped[i]:
			f.gates[i].open.Store(true)
		}
	}
	for i, why := range unreached {
		f.gates[i].keep(why)
		log.Warn("shard is out of reach; its keys are refused until its stamp can be checked", "shard", f.shards[i].Name, "error", why)
	}
	if len(unreached) > 0 {
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

// outOfReach tells a shard that did not answer from one whose answer speaks against us.
func outOfReach(err error) bool {
	var carrier interface{ GRPCStatus() *status.Status }
	var mismatch *backend.StampMismatch
	return errors.As(err, &carrier) && !errors.As(err, &mismatch)
}

// claimRest goes on until every gate is open, ctx ends, or a stamp speaks against us.
func (f *fleet) claimRest(ctx context.Context, log *slog.Logger) error {
	for {
		select {
		case <-time.After(claimPause):
		case <-ctx.Done():
			return nil
		}
		more, err := f.claim(ctx, log)
		if err != nil && ctx.Err() == nil {
			return err
		}
		if !more {
			return nil
		}
	}
}

// readStamps reads the stamps of all shards that can be reached; one that is not ours
// is an error.
func (f *fleet) readStamps(ctx context.Context) (stamped map[int]bool, unreached map[int]error, err error) {
	ctx, cancel := context.WithTimeout(ctx, claimTimeout)
	defer cancel()
	stamped, unreached = map[int]bool{}, map[int]error{}
	var faults []error
	deployment := ""
	for i, want := range f.stamps() {
		want.Deployment = deployment
		got, found, err := backend.LookupStamp(ctx, f.clusters[i], want)
		switch {
		case outOfReach(err):
			unreached[i] = err
		case err != nil:
			faults = append(faults, err)
		case found:
			stamped[i], deployment = true, got.Deployment
		}
	}
	return stamped, unreached, errors.Join(faults...)
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
		stamps[i] = backend.Stamp{
			Shard: s.Name, Fingerprint: f.table.Fingerprint(), Home: f.shards[0].Name, Routes: f.table.Describe(),
		}
	}
	return stamps
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
