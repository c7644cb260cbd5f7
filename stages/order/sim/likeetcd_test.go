package sim

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"strings"
	"testing"

	"github.com/sharder/sharder/integration/etcdtest"
	"github.com/sharder/sharder/stages/order"
)

// TestTheJournalIsLikeEtcds does the same to the simulation's journal and to the real one.
// Positions differ; what is told of them is compared.
func TestTheJournalIsLikeEtcds(t *testing.T) {
	for seed := range uint64(3) {
		real := order.NewEtcd(etcdtest.Start(t).Conn())
		made := &journal{newOrderLog(newDice(seed, "log")), &line{
			from: &process{ctx: t.Context()}, dice: newDice(seed, "line"), away: func() bool { return false },
		}}
		if want, have := exercise(t.Context(), real, seed), exercise(t.Context(), made, seed); want != have {
			t.Fatalf("seed %d: etcd's journal\n%s\nthe simulation's\n%s", seed, want, have)
		}
	}
}

// exercise does something random to an empty journal and tells what came of it, with
// positions by their number.
func exercise(ctx context.Context, j order.Journal, seed uint64) string {
	var told strings.Builder
	tell := func(format string, args ...any) { fmt.Fprintf(&told, format+"\n", args...) }
	r := rand.New(rand.NewPCG(seed, 0))
	positions := []int64{0} // of the entries, by number
	number := func(pos int64) int {
		n := 0
		for n+1 < len(positions) && positions[n+1] <= pos {
			n++
		}
		return n
	}
	saved := 0
	_, err := j.Load(ctx)
	tell("no log: %v", errors.Is(err, order.ErrNoLog))
	for range 2 {
		created, err := j.Create(ctx, []byte("first"))
		pos, _ := j.Position(ctx)
		if created {
			positions = append(positions, pos)
		}
		tell("create: %v, %v, position %d", created, err, number(pos))
	}
	for n := range 40 {
		switch r.IntN(4) {
		case 0, 1:
			pos, err := j.Append(ctx, fmt.Appendf(nil, "entry %d", n))
			tell("append: %v, later: %v", err, pos > positions[len(positions)-1])
			positions = append(positions, pos)
		case 2:
			at := positions[1+r.IntN(len(positions)-1)]
			saved = max(saved, number(at))
			tell("save at %d: %v", number(at), j.Save(ctx, order.Checkpoint{Position: at, Text: fmt.Append(nil, n)}))
		case 3:
			c, err := j.Load(ctx)
			tell("load: at %d, %q, %v", number(c.Position), c.Text, err)
			from := r.IntN(len(positions))
			if from == saved-1 {
				from = saved // one below is enough only if nothing else of the cluster lies between
			}
			tell("follow from %d: %s", from, follow(ctx, j, positions[from], positions[len(positions)-1], number))
		}
	}
	return told.String()
}

// follow tells what comes behind a position, up to another.
func follow(ctx context.Context, j order.Journal, from, to int64, number func(int64) int) string {
	if from == to {
		return "nothing"
	}
	var told []string
	enough := errors.New("enough")
	err := j.Follow(ctx, from, func(r order.Record) error {
		if r.Entry == nil {
			return nil // a notice may stand for several
		}
		told = append(told, fmt.Sprintf("%d %q", number(r.Position), r.Entry))
		if r.Position >= to {
			return enough
		}
		return nil
	})
	return fmt.Sprintf("%s, forgotten: %v, enough: %v", strings.Join(told, ", "), errors.Is(err, order.ErrForgotten), errors.Is(err, enough))
}
