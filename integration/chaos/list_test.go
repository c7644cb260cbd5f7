package chaos

import (
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
func listThenWatch(t *testing.T, trial *witness.Trial, at, then witness.Server) {
	t.Helper()
	witness.Eventually(t, bound, "a list", func() bool {
		o := trial.Ask(at, 2*time.Second, &pb.RangeRequest{Key: []byte{0}, RangeEnd: []byte{0}})
		if o.Err != nil {
			return false
		}
		rev := o.Reply.(*pb.RangeResponse).Header.Revision
		trial.Follow(fmt.Sprint("list at ", rev), witness.Watching("\x00", "\x00", rev+1), then)
		return true
	})
}

func TestListThenWatchMissesNothingWhileOthersWrite(t *testing.T) {
	t.Parallel()
	f := startOrdered(t, 1, 1, 1, 1)
	trial := witness.NewTrial(t, witness.Seed(t), f.servers...)
	trial.Flowing("after the start")
	for i := range 30 * witness.Rounds(t) {
		listThenWatch(t, trial, f.servers[i%2], f.servers[1-i%2])
		time.Sleep(50 * time.Millisecond)
	}
	trial.Flowing("after the last list")
	trial.Settle()
	trial.Judge()
}

// Few keys and no rest: what happens between two steps of a request happens here.
func TestOneRevisionUnderContention(t *testing.T) {
	t.Parallel()
	f := startOrdered(t, 1, 1, 1, 1)
	trial := witness.NewTrialOf(t, witness.ClientOptions{
		Clients: 24, Ops: 150 * witness.Rounds(t), Patience: 10 * time.Second, Seed: witness.Seed(t), Few: true,
	}, f.servers...)
	trial.Wait()
	trial.Judge()
}

// TestPorcupineFindsOneOrderOverAllShards has less history than the trials, but leaves
// finding an order of all requests to a search.
func TestPorcupineFindsOneOrderOverAllShards(t *testing.T) {
	t.Parallel()
	f := startOrdered(t, 1, 1, 1, 1)
	trial := witness.NewTrialOf(t, witness.ClientOptions{
		Clients: 6, Ops: 60, Pace: 80 * time.Millisecond, Patience: 2 * time.Second, Seed: witness.Seed(t), Few: true,
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
	trial.Wait()
	trial.Settle()
	timeline := trial.Judge()
	if got := history.Linearizable(trial.Log.Ops(), timeline, 5*time.Minute); got != porcupine.Ok {
		t.Fatalf("porcupine: %s", got)
	}
}
