package backend

import (
	"context"
	"fmt"
	"sync/atomic"
	"testing"
	"time"

	"github.com/sourcegraph/conc"

	"github.com/sharder/sharder/integration/etcdproc"
	"github.com/sharder/sharder/stages"
	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	"go.etcd.io/etcd/api/v3/mvccpb"
)

// A member that was frozen believes that it has a leader when it goes on, and knows nothing of
// what was written meanwhile: until it does, nobody is sent there who would not notice.
func TestAMemberThatMissedSomethingIsAskedLastUntilItHasIt(t *testing.T) {
	t.Parallel()
	p := etcdproc.Start(t, 3, etcdproc.WithCables())
	c := open(t, Options{Endpoints: p.Endpoints(), HealthInterval: 400 * time.Millisecond})
	kv := pb.NewKVClient(c)
	put := func(value string) {
		t.Helper()
		p.Despite(func() error { return put(within(t, 30*time.Second), c, "k", value) })
	}
	eventually(t, 30*time.Second, "all answer", func() bool { return leaders(c) == 1 && allUp(c) })
	put("old")
	victim := p.Follower()
	p.Isolate(victim) // it hears nothing when it goes on, and doesn't know that yet
	p.Pause(victim)
	eventually(t, 30*time.Second, "it is left", func() bool { return !memberAt(c, p.Endpoint(victim)).Healthy })
	for i := range 20 {
		put(fmt.Sprint("new ", i))
	}
	othersTell(t, c)

	ctx, cancel := context.WithCancel(context.Background())
	var wg conc.WaitGroup
	var reads, old atomic.Int64
	wg.Go(func() {
		for ctx.Err() == nil {
			r, err := kv.Range(ctx, &pb.RangeRequest{Key: []byte("k"), Serializable: true})
			if reads.Add(1); err == nil && (len(r.Kvs) == 0 || string(r.Kvs[0].Value) == "old") {
				old.Add(1)
			}
			time.Sleep(2 * time.Millisecond)
		}
	})
	p.Resume(victim)
	eventually(t, 30*time.Second, "it lags", func() bool { return memberAt(c, p.Endpoint(victim)).Lagging })
	seen := reads.Load()
	eventually(t, 30*time.Second, "there are reads meanwhile", func() bool { return reads.Load() > seen+300 })
	p.Reconnect()
	eventually(t, 30*time.Second, "it has everything", func() bool {
		m := memberAt(c, p.Endpoint(victim))
		return m.Healthy && !m.Lagging && !m.NoLeader
	})
	answersAgain(t, c, p.Endpoint(victim))
	cancel()
	wg.Wait()
	if n := old.Load(); n > 0 {
		t.Errorf("%d of %d serializable reads were answered by the member that lagged", n, reads.Load())
	}
}

// othersTell waits until the members that answer have told, as long ago as it takes to compare with, that
// they have everything that was written before.
func othersTell(t *testing.T, c *Cluster) {
	t.Helper()
	last := uint64(0)
	eventually(t, 30*time.Second, "the others tell how far they have come", func() bool {
		if last == 0 {
			_, st, err := statusAt(t, c, stages.Want{Role: stages.RoleLeader})
			if err != nil {
				return false
			}
			last = st.RaftAppliedIndex
		}
		for _, s := range c.roster.Load().seats {
			if now := s.now(); now.health == up && now.marks.agedIndex() < last {
				return false
			}
		}
		return true
	})
}

// While there is no quorum, a member without a leader has what the cluster had last, and one that lags
// has not. Reads that ask no leader go on, and must not go back.
func TestWithoutAQuorumTheMemberThatLagsIsTheLastToAnswer(t *testing.T) {
	t.Parallel()
	p := etcdproc.Start(t, 3, etcdproc.WithCables())
	c := open(t, Options{Endpoints: p.Endpoints(), HealthInterval: 400 * time.Millisecond})
	kv := pb.NewKVClient(c)
	eventually(t, 30*time.Second, "all answer", func() bool { return leaders(c) == 1 && allUp(c) })
	p.Despite(func() error { return put(within(t, 30*time.Second), c, "k", "old") })
	gone := p.Leader()
	behind := (gone + 1) % 3
	p.Isolate(behind)
	p.Pause(behind)
	eventually(t, 30*time.Second, "it is left", func() bool { return !memberAt(c, p.Endpoint(behind)).Healthy })
	for range 20 {
		p.Despite(func() error { return put(within(t, 30*time.Second), c, "k", "new") })
	}
	othersTell(t, c)
	p.Kill(gone)
	left := 3 - behind - gone
	eventually(t, 30*time.Second, "nobody leads", func() bool { return memberAt(c, p.Endpoint(left)).NoLeader })
	p.Resume(behind)
	eventually(t, 30*time.Second, "it lags", func() bool { return memberAt(c, p.Endpoint(behind)).Lagging })
	read := &pb.RangeRequest{Key: []byte("k"), Serializable: true}
	op := []*pb.RequestOp{{Request: &pb.RequestOp_RequestRange{RequestRange: read}}}
	for range 50 {
		r, err := kv.Range(within(t, 30*time.Second), read)
		if err != nil {
			t.Fatal(err)
		}
		txn, err := kv.Txn(within(t, 30*time.Second), &pb.TxnRequest{Success: op})
		if err != nil {
			t.Fatal(err)
		}
		for _, kvs := range [][]*mvccpb.KeyValue{r.Kvs, txn.Responses[0].GetResponseRange().Kvs} {
			if len(kvs) == 0 || string(kvs[0].Value) == "old" {
				t.Fatal("a read was answered by the member that lags")
			}
		}
	}
}

// Among members that can't serve everything those come last that can't serve what is asked.
func TestWhatAMemberLacksMattersToTheCallsThatNeedIt(t *testing.T) {
	of := &seat{member: &member{}, priority: 7}
	fine := condition{health: up, finding: finding{told: true, leader: 1}}
	lags, lost := fine, fine
	lags.lagging, lost.leader = true, 0
	for _, local := range []bool{true, false} {
		s := search{local: local}
		good, lagging, leaderless := s.rank(of, &fine), s.rank(of, &lags), s.rank(of, &lost)
		if good != 7 || good >= min(lagging, leaderless) || (leaderless < lagging) != local || (lagging < leaderless) == local {
			t.Errorf("local %t: %x, one that lags %x, one without a leader %x", local, good, lagging, leaderless)
		}
	}
}
