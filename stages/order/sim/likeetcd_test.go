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

// exercise does something random to an empty journal and tells what came of it.
func exercise(ctx context.Context, j order.Journal, seed uint64) string {
	e := &exerciser{ctx: ctx, Journal: j, r: rand.New(rand.NewPCG(seed, 0)), positions: []int64{0}}
	_, err := j.Load(ctx)
	e.tell("no log: %v", errors.Is(err, order.ErrNoLog))
	for range 2 {
		created, err := j.Create(ctx, []byte("first"))
		pos, _ := j.Position(ctx)
		if created {
			e.positions = append(e.positions, pos)
		}
		e.tell("create: %v, %v, position %d", created, err, e.number(pos))
	}
	for n := range 40 {
		e.step(n)
	}
	return e.told.String()
}

// exerciser calls positions by the number of their entry.
type exerciser struct {
	ctx context.Context
	order.Journal
	r         *rand.Rand
	positions []int64 // of the entries, by number; 0 is before the first
	saved     int     // the number of the newest checkpoint
	told      strings.Builder
}

func (e *exerciser) tell(format string, args ...any) { fmt.Fprintf(&e.told, format+"\n", args...) }

func (e *exerciser) number(pos int64) int {
	n := 0
	for n+1 < len(e.positions) && e.positions[n+1] <= pos {
		n++
	}
	return n
}

func (e *exerciser) step(n int) {
	switch e.r.IntN(6) {
	case 4:
		e.open(n)
	case 5:
		e.records()
	case 0, 1:
		pos, err := e.Append(e.ctx, fmt.Appendf(nil, "entry %d", n))
		e.tell("append: %v, later: %v", err, pos > e.positions[len(e.positions)-1])
		e.positions = append(e.positions, pos)
	case 2:
		at := 1 + e.r.IntN(len(e.positions)-1)
		e.saved = max(e.saved, at)
		e.tell("save at %d: %v", at, e.Save(e.ctx, order.Checkpoint{Position: e.positions[at], Text: fmt.Append(nil, n)}))
	case 3:
		c, err := e.Load(e.ctx)
		e.tell("load: at %d, %q, %v", e.number(c.Position), c.Text, err)
		from := e.r.IntN(len(e.positions))
		if from == e.saved-1 {
			from = e.saved // one below is enough only if nothing else of the cluster lies between
		}
		e.tell("follow from %d: %s", from, e.follow(from))
	}
}

// nonces are of the batches that are opened, again and again; each always has the same until
// and the same record.
var nonces = []string{"one", "another", "third"}

func (e *exerciser) open(n int) {
	i := e.r.IntN(len(nonces))
	record := []byte(strings.Repeat(fmt.Sprint(i), 1+i*400_000)) // a larger one is in pieces
	pos, err := e.Open(e.ctx, fmt.Appendf(nil, "open %d", n), int64(10*i), nonces[i], record)
	e.tell("open %s: %v, later: %v", nonces[i], err, pos > e.positions[len(e.positions)-1])
	e.positions = append(e.positions, pos)
}

func (e *exerciser) records() {
	i := e.r.IntN(len(nonces))
	record, err := e.LoadRecord(e.ctx, int64(10*i), nonces[i])
	e.tell("record of %s: %d bytes, %.5q, %v", nonces[i], len(record), record, err)
	number := int64(e.r.IntN(25))
	old, err := e.OldRecords(e.ctx, number)
	e.tell("older than %d: %v, %v", number, old, err)
	if e.r.IntN(2) == 0 {
		e.tell("drop %s: %v", nonces[i], e.DropRecord(e.ctx, int64(10*i), nonces[i]))
	}
}

// follow tells what comes behind an entry, up to the newest.
func (e *exerciser) follow(from int) string {
	newest := e.positions[len(e.positions)-1]
	if e.positions[from] == newest {
		return "nothing"
	}
	var told []string
	enough := errors.New("enough")
	err := e.Follow(e.ctx, e.positions[from], func(r order.Record) error {
		if r.Entry == nil {
			return nil // a notice may stand for several
		}
		told = append(told, fmt.Sprintf("%d %q", e.number(r.Position), r.Entry))
		if r.Position >= newest {
			return enough
		}
		return nil
	})
	return fmt.Sprintf("%s, forgotten: %v, enough: %v", strings.Join(told, ", "), errors.Is(err, order.ErrForgotten), errors.Is(err, enough))
}
