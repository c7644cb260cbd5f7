package chaos

import (
	"context"
	"fmt"
	"testing"
	"time"

	"github.com/anishathalye/porcupine"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"

	"github.com/sharder/sharder/integration/history"
	"github.com/sharder/sharder/integration/witness"
)

// listThenWatch lists everything at one server, and watches from the next revision on at
// another. The trial's judge then wants the list to be the state at its revision, and
// the watch to have every event behind it once.
func (r *trial) listThenWatch(at, then witness.Server) {
	r.t.Helper()
	witness.Eventually(r.t, bound, "a list", func() bool {
		ctx, cancel := context.WithTimeout(context.Background(), 2*time.Second)
		defer cancel()
		o := r.log.Do(ctx, -2, at.Name, pb.NewKVClient(at.Conn), &pb.RangeRequest{Key: []byte{0}, RangeEnd: []byte{0}})
		if o.Err != nil {
			return false
		}
		rev := o.Reply.(*pb.RangeResponse).Header.Revision
		r.followers = append(r.followers, witness.Follow(fmt.Sprint("list at ", rev), watching("\x00", "\x00", rev+1), then))
		return true
	})
}

func TestListThenWatchMissesNothingWhileOthersWrite(t *testing.T) {
	t.Parallel()
	f := startOrdered(t, 1, 1, 1, 1)
	trial := newTrial(t, seed(t), f.servers...)
	trial.flowing("the start")
	for i := range 30 * rounds(t) {
		trial.listThenWatch(f.servers[i%2], f.servers[1-i%2])
		time.Sleep(50 * time.Millisecond)
	}
	trial.flowing("the last list")
	f.settled()
	trial.judge()
}

// TestPorcupineFindsOneOrderOverAllShards has less history than the trials, but leaves
// finding an order of all requests to a search.
func TestPorcupineFindsOneOrderOverAllShards(t *testing.T) {
	t.Parallel()
	f := startOrdered(t, 1, 1, 1, 1)
	trial := newTrialOf(t, witness.ClientOptions{
		Clients: 6, Ops: 60, Pace: 80 * time.Millisecond, Patience: 2 * time.Second, Seed: seed(t), Few: true,
	}, f.servers...)
	time.Sleep(time.Second)
	f.restart(0)
	f.clusters[1].Pause(0)
	time.Sleep(500 * time.Millisecond)
	f.clusters[1].Resume(0)
	f.orderCluster().Kill(0)
	time.Sleep(300 * time.Millisecond)
	f.orderCluster().Start(0)
	f.restart(1)
	trial.clients.Wait()
	f.settled()
	timeline := trial.judge()
	if got := history.Linearizable(trial.log.Ops(), timeline, time.Minute); got != porcupine.Ok {
		t.Fatalf("porcupine: %s", got)
	}
}
