package grpcproxy_test

import (
	"context"
	"fmt"
	"strings"
	"testing"
	"time"

	"go.uber.org/zap"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	clientv3 "go.etcd.io/etcd/client/v3"

	"github.com/sharder/sharder/integration/etcdproc"
)

// P19: what is about one member is answered by one that can be told in advance, each time.
// grpc-proxy asks whichever comes next: of thirty Status each member answers ten, and MoveLeader
// fails two times in three.
func TestMaintenanceIsAnsweredByTheMemberThatItIsAbout(t *testing.T) {
	t.Parallel()
	d := open(t, sharder, &probe{members: 3, etcd: quick})
	ctx := t.Context()
	m := pb.NewMaintenanceClient(d.conn())
	var answered map[uint64]int
	var leader uint64
	for again := true; again; {
		elections := d.cluster.Elections()
		answered = map[uint64]int{}
		for range 30 {
			st, err := m.Status(ctx, &pb.StatusRequest{})
			if err != nil {
				t.Fatal(err)
			}
			answered[st.Header.MemberId]++
			leader = st.Leader
		}
		if again = d.cluster.Elections() != elections; again {
			leader = d.knownLeader(ctx)
		}
	}
	if len(answered) != 1 || answered[leader] != 30 {
		t.Errorf("Status came from %v, the leader is %x", answered, leader)
	}
	list, err := d.behind().MemberList(ctx)
	if err != nil {
		t.Fatal(err)
	}
	elections := d.cluster.Elections()
	for moved, i := 0, 0; moved < 8; i++ {
		target := list.Members[i%3].ID
		if target == leader {
			continue
		}
		if _, err := m.MoveLeader(ctx, &pb.MoveLeaderRequest{TargetID: target}); err != nil {
			n := d.cluster.Elections() // of which each member has seen those that were asked for
			if leader = d.knownLeader(ctx); n <= elections || leader == target {
				t.Fatalf("%d: %v", i, err)
			}
			elections = n // there was another one
			continue
		}
		leader = target
		elections += d.cluster.Len()
		moved++
	}
}

// knownLeader waits until who stands in the door knows which member leads, and gives it.
func (d *door) knownLeader(ctx context.Context) (leader uint64) {
	d.t.Helper()
	if !eventually(ctx, func() bool {
		st, err := pb.NewMaintenanceClient(d.conn()).Status(ctx, &pb.StatusRequest{})
		if err == nil {
			leader = st.Leader
		}
		return err == nil && st.Leader == st.Header.MemberId
	}) {
		d.t.Fatal("the leader is not known")
	}
	return leader
}

// P19: a MemberList is whole: header, names, ids. With --advertise-client-url="" it is that of
// the cluster, as with grpc-proxy.
func TestMemberListIsWholeAndCanBePassedOn(t *testing.T) {
	t.Parallel()
	d := open(t, sharder, &probe{flags: []string{"--advertise-client-url", ""}})
	ctx := t.Context()
	c := pb.NewClusterClient(d.conn())
	want, err := d.behind().MemberList(ctx)
	if err != nil {
		t.Fatal(err)
	}
	for _, linearizable := range []bool{false, true} {
		got, err := c.MemberList(ctx, &pb.MemberListRequest{Linearizable: linearizable})
		if err != nil {
			t.Fatal(err)
		}
		if fmt.Sprint(got.Members) != fmt.Sprint((*pb.MemberListResponse)(want).Members) || !strings.HasPrefix(d.header(got.Header), "revision") {
			t.Errorf("%v\nwant\n%v", got, want)
		}
	}
	d.start() // with the flag that it has else
	got, err := pb.NewClusterClient(d.conn()).MemberList(ctx, &pb.MemberListRequest{Linearizable: true})
	if err != nil {
		t.Fatal(err)
	}
	if len(got.Members) != 1 || len(got.Members[0].ClientURLs) != 1 || !strings.HasSuffix(got.Members[0].ClientURLs[0], d.addr) ||
		got.Members[0].ID == 0 || got.Members[0].Name == "" || !strings.HasPrefix(d.header(got.Header), "revision") {
		t.Errorf("%v", got)
	}
}

// R02: a member that is frozen, and keeps its connections, is left within seconds without any
// flag. grpc-proxy sends it a third of all requests for ever, or 13 s long with keepalive flags.
func TestAFrozenMemberIsLeftAlone(t *testing.T) {
	t.Parallel()
	d := open(t, sharder, &probe{members: 3, etcd: quick})
	ctx := t.Context()
	kv := d.kv()
	put := func(bound time.Duration) error {
		ctx, cancel := context.WithTimeout(ctx, bound)
		defer cancel()
		_, err := kv.Put(ctx, &pb.PutRequest{Key: []byte("k"), Value: []byte("v")})
		return err
	}
	for range 30 {
		d.cluster.Despite(func() error { return put(soon) })
	}
	w, err := d.watched(ctx, ofK(0))
	if err != nil {
		t.Fatal(err)
	}
	straightly := d.clientTo(hostPort(d.cluster.Endpoint(d.cluster.Leader())))
	victim := d.cluster.Follower()
	d.cluster.Pause(victim)
	frozen, slowest := time.Now(), time.Duration(0)
	for slow := true; slow && time.Since(frozen) < 2*soon; {
		slow = false
		for range 12 {
			slow = put(time.Second) != nil || slow
		}
		// The others, asked straight: what they take is not the frozen one's doing.
		began := time.Now()
		bounded, cancel := context.WithTimeout(ctx, time.Second)
		_, _ = straightly.Get(bounded, "k")
		cancel()
		slowest = max(slowest, time.Since(began))
	}
	if took := time.Since(frozen); took > 10*time.Second+4*slowest {
		t.Errorf("it took %v until it was left alone", took)
	}
	elections := d.cluster.Elections(victim)
	for range 60 {
		if err := put(soon); err != nil && (!etcdproc.ElectionError(err) || d.cluster.Elections(victim) == elections) {
			t.Fatalf("after it was left alone: %v", err)
		}
	}
	if m, err := w.next(soon); err != nil || len(m.Events) == 0 {
		t.Errorf("the watch: %v %v", m, err)
	}
}

// A Go client that syncs its endpoints from MemberList stays with the proxy.
func TestAClientThatSyncsStaysWithTheProxy(t *testing.T) {
	t.Parallel()
	d := open(t, sharder, &probe{})
	c, err := clientv3.New(clientv3.Config{Endpoints: []string{d.addr}, AutoSyncInterval: 50 * time.Millisecond, Logger: zap.NewNop()})
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	if err := c.Sync(t.Context()); err != nil {
		t.Fatal(err)
	}
	for range 5 {
		time.Sleep(60 * time.Millisecond)
		if e := c.Endpoints(); len(e) != 1 || hostPort("x://"+strings.TrimPrefix(e[0], "http://")) != d.addr {
			t.Fatalf("it went to %v", e)
		}
		if _, err := c.Put(t.Context(), "k", "v"); err != nil {
			t.Fatal(err)
		}
	}
}
