package chaos

import (
	"context"
	"fmt"
	"math/rand/v2"
	"testing"
	"time"

	"github.com/sharder/sharder/integration/witness"
	"github.com/sharder/sharder/stages"
)

// bank lets everything happen while money is moved, and looks at the books, and at what the
// transactions have left on the shards.
func (f *ordered) bank(faults func(r *rand.Rand) []fault) {
	f.t.Helper()
	n := witness.Seed(f.t)
	r := rand.New(rand.NewPCG(n, 0))
	b := witness.NewBank(f.t, n, f.servers...)
	b.Flowing("after the start")
	for range witness.Rounds(f.t) {
		for _, fault := range faults(r) {
			f.t.Log(fault.name)
			fault.happen()
			b.Flowing("after " + fault.name)
		}
	}
	b.Judge()
	f.nothingIsLeft()
}

// nothingIsLeft waits until no shard is fenced.
func (f *ordered) nothingIsLeft() {
	f.t.Helper()
	for i, c := range f.clusters[:3] {
		client := c.Client()
		witness.Eventually(f.t, witness.Bound, fmt.Sprintf("shard %d has no fence", i), func() bool {
			ctx, cancel := context.WithTimeout(context.Background(), 2*time.Second)
			defer cancel()
			got, err := client.Get(ctx, stages.FenceKey)
			return err == nil && got.Count == 0
		})
	}
}

func TestNoMoneyIsLostWhateverBreaks(t *testing.T) {
	f := startSharders(t, 3, 1, 1, 1, 1)
	f.bank(f.faults)
}

// Transactions are under way all the time, so a sharder that dies or sleeps leaves some in
// every state, and another one finishes them.
func TestNoMoneyIsLostWhileShardersDieAndSleep(t *testing.T) {
	f := startOrdered(t, 1, 1, 1, 1)
	f.bank(func(r *rand.Rand) (all []fault) {
		for i := range f.sharders {
			for range 3 {
				all = append(all,
					fault{fmt.Sprint("sharder ", i, " killed"), func() { f.restart(i) }},
					fault{fmt.Sprint("sharder ", i, " frozen"), func() { f.sharders[i].Pause(); f.pause(r); f.sharders[i].Resume() }},
				)
			}
		}
		r.Shuffle(len(all), func(i, j int) { all[i], all[j] = all[j], all[i] })
		return all
	})
}

// An etcd is a bank by definition: the bank itself is under test here.
func TestAnEtcdIsABank(t *testing.T) {
	f := startSharders(t, 0, 1, 1, 1, 1)
	s := witness.Dial(t, "etcd", hostPort(f.clusters[0].Endpoint(0)))
	b := witness.NewBank(t, witness.Seed(t), s, s)
	b.Flowing("after the start")
	f.clusters[0].Kill(0)
	time.Sleep(300 * time.Millisecond)
	f.clusters[0].Start(0)
	b.Flowing("after its death")
	b.Judge()
}
