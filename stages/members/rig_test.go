package members

import (
	"context"
	"fmt"
	"net"
	"strings"
	"testing"
	"time"

	"github.com/sourcegraph/conc"
	"google.golang.org/grpc"
	"google.golang.org/grpc/metadata"

	"github.com/sharder/sharder/integration/etcdproc"
	"github.com/sharder/sharder/integration/etcdtest"
	"github.com/sharder/sharder/stages"
	"github.com/sharder/sharder/stages/backend"
	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
)

// rig serves Maintenance for clusters of real etcds.
type rig struct {
	pb.MaintenanceClient
	backends []*backend.Cluster
	clusters []*Cluster
}

// cluster is one of the clusters.
func (r *rig) cluster(i int) *Cluster { return r.clusters[i] }

// newRig serves for clusters of these endpoints; shards a, b, … and, if there are several,
// the last one as the order cluster.
func newRig(t *testing.T, endpoints ...[]string) *rig {
	t.Helper()
	r := &rig{}
	ctx, cancel := context.WithCancel(context.Background())
	var wg conc.WaitGroup
	var clusters []*Cluster
	for i, e := range endpoints {
		s := &stages.Shard{Number: i, Name: string(rune('a' + i))}
		if len(endpoints) > 1 && i == len(endpoints)-1 {
			s.Number, s.Name = stages.OrderCluster, stages.OrderName
		}
		b, err := backend.Open(backend.Options{Name: s.Name, Endpoints: e, HealthInterval: 100 * time.Millisecond})
		if err != nil {
			t.Fatal(err)
		}
		wg.Go(func() { _ = b.Run(ctx) })
		s.Conn = b
		r.backends = append(r.backends, b)
		clusters = append(clusters, &Cluster{Shard: s, State: func() (all []State) {
			for _, m := range b.Members() {
				all = append(all, State{Endpoint: m.Endpoint, ID: m.ID, Healthy: m.Healthy, Leader: m.Leader, Learner: m.Learner, Err: m.Err})
			}
			return all
		}})
	}
	r.clusters = clusters
	m := NewMaintenance(clusters...)
	r.serve(t, m)
	t.Cleanup(func() {
		m.Wait()
		cancel()
		wg.Wait()
		for _, b := range r.backends {
			b.Close()
		}
	})
	return r
}

// serve serves the calls as sharder does.
func (r *rig) serve(t *testing.T, m *Maintenance) {
	t.Helper()
	ways := map[string]grpc.StreamHandler{
		pb.Maintenance_Status_FullMethodName: m.Unary(Leader), pb.Maintenance_HashKV_FullMethodName: m.Unary(Leader), pb.Maintenance_Hash_FullMethodName: m.Unary(Leader),
		pb.Maintenance_Alarm_FullMethodName: m.Unary(Leader), pb.Maintenance_Downgrade_FullMethodName: m.Unary(Leader),
		pb.Maintenance_MoveLeader_FullMethodName: m.Unary(LeaderNow), pb.Maintenance_Snapshot_FullMethodName: m.Stream(Source),
		pb.Maintenance_Defragment_FullMethodName: m.Defragment(),
	}
	g := grpc.NewServer(grpc.WaitForHandlers(true), grpc.UnknownServiceHandler(func(srv any, s grpc.ServerStream) error {
		method, _ := grpc.MethodFromServerStream(s)
		return ways[method](srv, s)
	}))
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	var wg conc.WaitGroup
	wg.Go(func() { _ = g.Serve(l) })
	r.MaintenanceClient = pb.NewMaintenanceClient(etcdtest.Conn(t, l.Addr().String()))
	t.Cleanup(func() {
		g.Stop()
		wg.Wait()
	})
}

// to addresses the calls of a context.
func to(t *testing.T, shard, member string) context.Context {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	t.Cleanup(cancel)
	if shard != "" {
		ctx = metadata.AppendToOutgoingContext(ctx, ShardKey, shard)
	}
	if member != "" {
		ctx = metadata.AppendToOutgoingContext(ctx, MemberKey, member)
	}
	return ctx
}

// peopled waits until all members of a cluster are known, and gives them; i is the number of
// the leader.
func peopled(t *testing.T, b *backend.Cluster) (all []backend.MemberStatus, leader int) {
	t.Helper()
	eventually(t, "all members answer, and one leads", func() bool {
		all, leader = b.Members(), -1
		for i, m := range all {
			if !m.Healthy || m.ID == 0 {
				return false
			}
			if m.Leader {
				leader = i
			}
		}
		return leader >= 0
	})
	return all, leader
}

// fill gives a cluster something to keep.
func fill(t *testing.T, e *etcdproc.Cluster, keys int) {
	t.Helper()
	c := e.Client()
	for i := range keys {
		e.Despite(func() error {
			_, err := c.Put(t.Context(), fmt.Sprintf("k%04d", i), string(make([]byte, 10<<10)))
			return err
		})
	}
}

// abreast waits until the members that run have all that the leader has.
func abreast(t *testing.T, e *etcdproc.Cluster) {
	t.Helper()
	c := e.Client()
	last := uint64(0)
	eventually(t, "all members have everything", func() bool {
		for i, url := range append([]string{e.Endpoint(e.Leader())}, e.Endpoints()...) { // the leader says how much that is
			ctx, cancel := context.WithTimeout(t.Context(), 5*time.Second)
			st, err := c.Status(ctx, url)
			cancel()
			if err != nil || st.RaftAppliedIndex < last {
				return false
			}
			if i == 0 && last == 0 {
				last = st.RaftAppliedIndex
			}
		}
		return true
	})
}

// led waits until sharder knows who leads, and gives that member.
func led(t *testing.T, e *etcdproc.Cluster, b *backend.Cluster) (lead backend.MemberStatus) {
	t.Helper()
	eventually(t, "sharder knows who leads", func() bool {
		all, i := peopled(t, b)
		lead = all[i]
		return i == e.Leader()
	})
	return lead
}

// calmly looks at something that is not to be wrong while who leads stays the same; what is wrong
// when that changes says nothing.
func calmly(t *testing.T, e *etcdproc.Cluster, look func() (wrong []string)) {
	t.Helper()
	for range 5 {
		before := e.Elections()
		wrong := look()
		if len(wrong) == 0 {
			return
		}
		if e.Elections() == before {
			t.Error(strings.Join(wrong, "\n"))
			return
		}
	}
	t.Error("there is one election after another")
}
