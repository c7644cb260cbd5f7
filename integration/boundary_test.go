package integration

import (
	"context"
	"fmt"
	"io"
	"net/http"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/sourcegraph/conc"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/health/grpc_health_v1"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/types/known/emptypb"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"
	clientv3 "go.etcd.io/etcd/client/v3"
	"go.etcd.io/etcd/server/v3/etcdserver/api/v3election/v3electionpb"
	"go.etcd.io/etcd/server/v3/etcdserver/api/v3lock/v3lockpb"

	"github.com/sharder/sharder/integration/harness"
	"github.com/sharder/sharder/integration/script"
)

// grantID grants a lease, with an id or without.
func grantID(t *testing.T, c *clientv3.Client, id int64) int64 {
	t.Helper()
	r, err := pb.NewLeaseClient(c.ActiveConnection()).LeaseGrant(bounded(t), &pb.LeaseGrantRequest{ID: id, TTL: 3600})
	if err != nil || r.ID <= 0 || id != 0 && r.ID != id {
		t.Fatalf("granted %v, %v", r, err)
	}
	return r.ID
}

// listed are the leases that a client is told of.
func listed(t *testing.T, c *clientv3.Client) (ids []int64) {
	t.Helper()
	r, err := c.Leases(bounded(t))
	if err != nil {
		t.Fatal(err)
	}
	for _, l := range r.Leases {
		ids = append(ids, int64(l.ID))
	}
	slices.Sort(ids)
	return ids
}

// attach puts a key on a lease.
func attach(t *testing.T, c *clientv3.Client, key string, id int64) {
	t.Helper()
	if _, err := c.Put(bounded(t), key, "v", clientv3.WithLease(clientv3.LeaseID(id))); err != nil {
		t.Fatalf("%s on %x: %v", key, id, err)
	}
}

// noLease wants a lease not to exist, in all that a client can do with it.
func noLease(t *testing.T, c *clientv3.Client, what string, number int64) {
	t.Helper()
	id := clientv3.LeaseID(number)
	if r, err := c.TimeToLive(bounded(t), id, clientv3.WithAttachedKeys()); err != nil || r.ID != id || r.TTL != -1 || r.GrantedTTL != 0 || len(r.Keys) != 0 {
		t.Errorf("%s: looked at: %+v, %v", what, r, err)
	}
	if _, err := c.KeepAliveOnce(bounded(t), id); err != rpctypes.ErrLeaseNotFound {
		t.Errorf("%s: kept alive: %v", what, err)
	}
	if _, err := c.Revoke(bounded(t), id); err != rpctypes.ErrLeaseNotFound {
		t.Errorf("%s: revoked: %v", what, err)
	}
	if _, err := c.Put(bounded(t), "theirs", "v", clientv3.WithLease(id)); err != rpctypes.ErrLeaseNotFound {
		t.Errorf("%s: attached to: %v", what, err)
	}
	if _, err := c.Txn(bounded(t)).Then(clientv3.OpTxn(nil, []clientv3.Op{clientv3.OpPut("theirs", "v", clientv3.WithLease(id))}, nil)).Commit(); err != rpctypes.ErrLeaseNotFound {
		t.Errorf("%s: attached to in a Txn: %v", what, err)
	}
	if slices.Contains(listed(t, c), number) {
		t.Errorf("%s: listed", what)
	}
}

func TestALeaseIsOfTheNamespaceThatHasGrantedIt(t *testing.T) {
	together(t, func(t *testing.T, h *house) {
		first := h.tenant(t, "one/")
		one, again := clientOf(t, first.Endpoint), clientOf(t, h.tenant(t, "one/").Endpoint)
		two, whole := clientOf(t, h.tenant(t, "two/").Endpoint), clientOf(t, h.whole(t).Endpoint)

		drawn, five := grantID(t, one, 0), grantID(t, one, 5)
		attach(t, one, "drawn", drawn)
		attach(t, one, "five", five)
		mine := grantID(t, two, 5) // the same number, another lease
		attach(t, two, "five", mine)
		outside, seven := grantID(t, whole, 0), grantID(t, whole, 7)
		attach(t, whole, "one/lent", outside)
		attach(t, whole, "one/seven", seven)

		noLease(t, two, "another's, drawn", drawn)
		noLease(t, one, "one without a namespace, drawn", outside)
		noLease(t, one, "one without a namespace, chosen", seven)
		lent, err := one.Get(bounded(t), "lent")
		if err != nil || len(lent.Kvs) != 1 || lent.Kvs[0].Lease == 0 || lent.Kvs[0].Lease == outside {
			t.Fatalf("a key on somebody's lease is %v, %v", lent, err)
		}
		noLease(t, one, "what is shown of it", lent.Kvs[0].Lease)

		for what, c := range map[string]*clientv3.Client{"granted it": one, "is another sharder": again} {
			if got := listed(t, c); !slices.Equal(got, []int64{5, drawn}) {
				t.Errorf("whoever %s is told of leases %x", what, got)
			}
			r, err := c.TimeToLive(bounded(t), 5, clientv3.WithAttachedKeys())
			if err != nil || r.GrantedTTL != 3600 || len(r.Keys) != 1 || string(r.Keys[0]) != "five" {
				t.Errorf("whoever %s finds it %+v, %v", what, r, err)
			}
			if _, err := c.KeepAliveOnce(bounded(t), clientv3.LeaseID(drawn)); err != nil {
				t.Errorf("whoever %s keeps it alive: %v", what, err)
			}
		}
		if got := listed(t, two); !slices.Equal(got, []int64{5}) {
			t.Errorf("the other namespace is told of leases %x", got)
		}

		first.Stop()
		first.Again()
		one = clientOf(t, first.Endpoint) // the other one may wait before it dials again
		if got := listed(t, one); !slices.Equal(got, []int64{5, drawn}) {
			t.Errorf("after a restart it has leases %x", got)
		}
		if _, err := again.Revoke(bounded(t), 5); err != nil {
			t.Fatal(err)
		}
		noLease(t, one, "revoked", 5)
		left, err := whole.Get(bounded(t), "", clientv3.WithPrefix(), clientv3.WithKeysOnly())
		if err != nil {
			t.Fatal(err)
		}
		var keys []string
		for _, kv := range left.Kvs {
			keys = append(keys, string(kv.Key))
		}
		if want := []string{"one/drawn", "one/lent", "one/seven", "two/five"}; !slices.Equal(keys, want) {
			t.Errorf("left are %q, want %q", keys, want)
		}
	})
}

// On one stream, the answers to leases that are not the namespace's come with the ids that were
// asked for, and between the others.
func TestKeepAlivesOfAnybodysLeasesAreAnsweredWithTheirIDs(t *testing.T) {
	together(t, func(t *testing.T, h *house) {
		one, two := clientOf(t, h.tenant(t, "one/").Endpoint), clientOf(t, h.tenant(t, "two/").Endpoint)
		mine, chosen, theirs := grantID(t, one, 0), grantID(t, one, 9), grantID(t, two, 0)
		stream, err := pb.NewLeaseClient(one.ActiveConnection()).LeaseKeepAlive(bounded(t))
		if err != nil {
			t.Fatal(err)
		}
		ids := []int64{theirs, mine, -1, chosen, theirs, 8, 1 << 40, mine, theirs + 1}
		for _, id := range ids {
			if err := stream.Send(&pb.LeaseKeepAliveRequest{ID: id}); err != nil {
				t.Fatal(err)
			}
		}
		for _, id := range ids {
			r, err := stream.Recv()
			if err != nil {
				t.Fatal(err)
			}
			if alive := id == mine || id == chosen; r.ID != id || (r.TTL > 0) != alive || r.Header.GetClusterId() == 0 {
				t.Errorf("asked for %x, answered %v", id, r)
			}
		}
	})
}

func TestWhatIsEverybodysIsRefusedInANamespace(t *testing.T) {
	together(t, func(t *testing.T, h *house) {
		conn := connOf(t, h.tenant(t, "one/").Endpoint)
		if _, err := pb.NewKVClient(conn).Put(bounded(t), &pb.PutRequest{Key: []byte("k")}, grpc.WaitForReady(true)); err != nil {
			t.Fatal(err)
		}
		left := map[string]bool{ // what isn't refused
			pb.Cluster_MemberList_FullMethodName: true, pb.Maintenance_Status_FullMethodName: true,
			pb.Maintenance_Alarm_FullMethodName: true, pb.Auth_Authenticate_FullMethodName: true,
		}
		methods := []string{pb.KV_Compact_FullMethodName, "/etcdserverpb.New/Thing"}
		for _, d := range []grpc.ServiceDesc{pb.Maintenance_ServiceDesc, pb.Cluster_ServiceDesc, pb.Auth_ServiceDesc} {
			for _, m := range d.Methods {
				methods = append(methods, "/"+d.ServiceName+"/"+m.MethodName)
			}
			for _, s := range d.Streams {
				methods = append(methods, "/"+d.ServiceName+"/"+s.StreamName)
			}
		}
		if len(methods) < 25 {
			t.Fatalf("only %q", methods)
		}
		for _, method := range methods {
			err := conn.Invoke(bounded(t), method, &emptypb.Empty{}, &emptypb.Empty{})
			refused := status.Code(err) == codes.PermissionDenied && strings.Contains(err.Error(), method) && strings.Contains(err.Error(), "without a namespace")
			if refused == left[method] {
				t.Errorf("%s: %v", method, err)
			}
		}
		maintenance := pb.NewMaintenanceClient(conn)
		for _, action := range []pb.AlarmRequest_AlarmAction{pb.AlarmRequest_ACTIVATE, pb.AlarmRequest_DEACTIVATE} {
			if _, err := maintenance.Alarm(bounded(t), &pb.AlarmRequest{Action: action, Alarm: pb.AlarmType_NOSPACE}); status.Code(err) != codes.PermissionDenied {
				t.Errorf("%v an alarm: %v", action, err)
			}
		}
		if r, err := maintenance.Alarm(bounded(t), &pb.AlarmRequest{}); err != nil || len(r.Alarms) != 0 {
			t.Errorf("the alarms are %v, %v", r, err)
		}
		if r, err := maintenance.Status(bounded(t), &pb.StatusRequest{}); err != nil || r.Version == "" {
			t.Errorf("the status is %v, %v", r, err)
		}
		if r, err := pb.NewClusterClient(conn).MemberList(bounded(t), &pb.MemberListRequest{}); err != nil || len(r.Members) != 1 || !strings.Contains(r.Members[0].ClientURLs[0], conn.Target()[len("passthrough:///"):]) {
			t.Errorf("the members are %v, %v; want the sharder", r, err)
		}
		for _, name := range []string{"sharder-shard", "sharder-member"} {
			_, err := pb.NewClusterClient(conn).MemberList(metadata.AppendToOutgoingContext(bounded(t), name, "one"), &pb.MemberListRequest{})
			if status.Code(err) != codes.PermissionDenied {
				t.Errorf("the members, with %s: %v", name, err)
			}
		}
		if r, err := grpc_health_v1.NewHealthClient(conn).Check(bounded(t), &grpc_health_v1.HealthCheckRequest{}); err != nil || r.Status != grpc_health_v1.HealthCheckResponse_SERVING {
			t.Errorf("the health is %v, %v", r, err)
		}
	})
}

func TestEtcdctlTakesANamespaceForHealthy(t *testing.T) {
	t.Parallel()
	for _, h := range houses(t, "one/") {
		s := h.tenant(t, "one/")
		if out := etcdctl(t, s, "endpoint", "health"); !strings.Contains(out, "is healthy") {
			t.Errorf("%s: %s", h.name, out)
		}
	}
}

// locks are names of locks and elections whose keys are on one shard, whose create revisions
// can be compared.
func TestLocksAndElectionsAreOfTheNamespace(t *testing.T) {
	together(t, func(t *testing.T, h *house) {
		one, two := clientOf(t, h.tenant(t, "one/").Endpoint), clientOf(t, h.tenant(t, "two/").Endpoint)
		again, whole := clientOf(t, h.tenant(t, "one/").Endpoint), clientOf(t, h.whole(t).Endpoint)
		take := func(c *clientv3.Client, lease int64) *v3lockpb.LockResponse {
			r, err := v3lockpb.NewLockClient(c.ActiveConnection()).Lock(bounded(t), &v3lockpb.LockRequest{Name: []byte("mine"), Lease: lease})
			if err != nil {
				t.Error(err)
				return &v3lockpb.LockResponse{}
			}
			return r
		}
		first := grantID(t, one, 0)
		held := take(one, first)
		if want := fmt.Sprintf("mine/%x", first); string(held.Key) != want {
			t.Errorf("the lock's key is %q, want %q", held.Key, want)
		}
		take(two, grantID(t, two, 0)) // another lock of that name
		got, err := whole.Get(bounded(t), "", clientv3.WithPrefix())
		if err != nil || len(got.Kvs) != 2 || string(got.Kvs[0].Key) != "one/"+string(held.Key) || !strings.HasPrefix(string(got.Kvs[1].Key), "two/mine/") {
			t.Errorf("outside there are %v, %v", got, err)
		}

		var wg conc.WaitGroup
		next := make(chan *v3lockpb.LockResponse, 1)
		second := grantID(t, again, 0)
		wg.Go(func() { next <- take(again, second) })
		waiting(t, one, "mine/", 2)
		if len(next) > 0 {
			t.Error("two have the lock")
		}
		if _, err := v3lockpb.NewLockClient(two.ActiveConnection()).Unlock(bounded(t), &v3lockpb.UnlockRequest{Key: held.Key}); err != nil {
			t.Fatal(err) // of another namespace: it is nobody's key there
		}
		waiting(t, one, "mine/", 2)
		if _, err := v3lockpb.NewLockClient(one.ActiveConnection()).Unlock(bounded(t), &v3lockpb.UnlockRequest{Key: held.Key}); err != nil {
			t.Fatal(err)
		}
		if r := <-next; string(r.Key) != fmt.Sprintf("mine/%x", second) {
			t.Errorf("then it is %q's", r.Key)
		}
		wg.Wait()
		elect(t, one, again, two)
	})
}

// elect holds an election in a namespace, of which another hears nothing.
func elect(t *testing.T, one, again, two *clientv3.Client) {
	t.Helper()
	office := &v3electionpb.LeaderRequest{Name: []byte("office")}
	seen, err := v3electionpb.NewElectionClient(again.ActiveConnection()).Observe(bounded(t), office)
	if err != nil {
		t.Fatal(err)
	}
	r, err := v3electionpb.NewElectionClient(one.ActiveConnection()).Campaign(bounded(t), &v3electionpb.CampaignRequest{Name: office.Name, Lease: grantID(t, one, 0), Value: []byte("me")})
	if err != nil {
		t.Fatal(err)
	}
	if l, err := seen.Recv(); err != nil || string(l.Kv.Value) != "me" || string(l.Kv.Key) != string(r.Leader.Key) || l.Kv.Lease != r.Leader.Lease {
		t.Errorf("observed %v, %v; elected is %v", l, err, r.Leader)
	}
	if _, err := v3electionpb.NewElectionClient(again.ActiveConnection()).Proclaim(bounded(t), &v3electionpb.ProclaimRequest{Leader: r.Leader, Value: []byte("still me")}); err != nil {
		t.Fatal(err)
	}
	if l, err := seen.Recv(); err != nil || string(l.Kv.Value) != "still me" {
		t.Errorf("observed %v, %v", l, err)
	}
	if l, err := v3electionpb.NewElectionClient(two.ActiveConnection()).Leader(bounded(t), office); err == nil {
		t.Errorf("in another namespace %v leads", l)
	}
	if _, err := v3electionpb.NewElectionClient(one.ActiveConnection()).Resign(bounded(t), &v3electionpb.ResignRequest{Leader: r.Leader}); err != nil {
		t.Fatal(err)
	}
}

// Over shards with revisions of their own a lock works if its keys are on one of them, and else
// is refused.
func TestALockOverShardsOfTheirOwnIsOnOneOfThem(t *testing.T) {
	t.Parallel()
	scriptSlots <- struct{}{}
	defer func() { <-scriptSlots }()
	for _, prefix := range []string{"", "one/"} {
		h := houses(t, "one/")[1]
		c := h.conf(t)
		if prefix == "" {
			c = harness.Three(c.Shards[0].Endpoints, c.Shards[1].Endpoints, c.Shards[2].Endpoints)
		} else {
			c = c.InNamespace(prefix)
		}
		s := harness.Start(t, c)
		conn, client := connOf(t, s.Endpoint), clientOf(t, s.Endpoint)
		locks, elections := v3lockpb.NewLockClient(conn), v3electionpb.NewElectionClient(conn)
		r, err := locks.Lock(bounded(t), &v3lockpb.LockRequest{Name: []byte("j")})
		if err != nil {
			t.Fatal(err)
		}
		waits, cancel := context.WithCancel(bounded(t))
		ended := make(chan error, 1)
		go func() {
			_, err := locks.Lock(waits, &v3lockpb.LockRequest{Name: []byte("j")})
			ended <- err
		}()
		waiting(t, client, "j/", 2)
		time.Sleep(300 * time.Millisecond)
		cancel()
		if err := <-ended; status.Code(err) != codes.Canceled {
			t.Errorf("two have the lock: %v", err)
		}
		if _, err := locks.Unlock(bounded(t), &v3lockpb.UnlockRequest{Key: r.Key}); err != nil {
			t.Fatal(err)
		}
		if _, err := locks.Lock(bounded(t), &v3lockpb.LockRequest{Name: []byte("j")}); err != nil {
			t.Error(err)
		}
		spread := []byte("/h")
		_, e1 := locks.Lock(bounded(t), &v3lockpb.LockRequest{Name: spread})
		_, e2 := elections.Campaign(bounded(t), &v3electionpb.CampaignRequest{Name: spread})
		_, e3 := elections.Leader(bounded(t), &v3electionpb.LeaderRequest{Name: spread})
		seen, e4 := elections.Observe(bounded(t), &v3electionpb.LeaderRequest{Name: spread})
		if e4 == nil {
			_, e4 = seen.Recv()
		}
		for i, err := range []error{e1, e2, e3, e4} {
			if status.Code(err) != codes.FailedPrecondition || !strings.Contains(err.Error(), "one, two, three") {
				t.Errorf("%d: a name whose keys are spread: %v", i, err)
			}
		}
	}
}

// The JSON gateway goes through the same door.
func TestTheGatewayIsInTheNamespaceToo(t *testing.T) {
	together(t, func(t *testing.T, h *house) {
		s := h.tenant(t, "one/")
		whole := clientOf(t, h.whole(t).Endpoint)
		ask := func(path, body string) (int, string) {
			t.Helper()
			r, err := http.Post("http://"+s.Endpoint+path, "application/json", strings.NewReader(body))
			if err != nil {
				t.Fatal(err)
			}
			defer r.Body.Close()
			text, _ := io.ReadAll(r.Body)
			return r.StatusCode, string(text)
		}
		if code, text := ask("/v3/kv/put", `{"key":"aw==","value":"dg=="}`); code != http.StatusOK {
			t.Fatal(code, text)
		}
		if code, text := ask("/v3/kv/range", `{"key":"AA==","range_end":"AA=="}`); code != http.StatusOK || !strings.Contains(text, `"key":"aw=="`) || !strings.Contains(text, `"count":"1"`) {
			t.Error(code, text)
		}
		if code, text := ask("/v3/lock/lock", `{"name":"bA=="}`); code != http.StatusOK {
			t.Error(code, text)
		}
		for _, path := range []string{"/v3/maintenance/snapshot", "/v3/kv/compaction", "/v3/auth/user/list", "/v3/cluster/member/add"} {
			if code, text := ask(path, `{}`); code != http.StatusForbidden {
				t.Error(path, code, text)
			}
		}
		got, err := whole.Get(bounded(t), "", clientv3.WithPrefix())
		if err != nil || len(got.Kvs) != 2 || string(got.Kvs[0].Key) != "one/k" || !strings.HasPrefix(string(got.Kvs[1].Key), "one/l/") {
			t.Errorf("outside there are %v, %v", got, err)
		}
	})
}

// Sharders of a namespace that register under a prefix do so inside, where its clients can
// find them.
func TestShardersOfANamespaceRegisterInIt(t *testing.T) {
	together(t, func(t *testing.T, h *house) {
		one := clientOf(t, harness.Start(t, advertised(t, withRegistration(h.conf(t))).InNamespace("one/")).Endpoint)
		waiting(t, one, "sharders/", 1)
		two := clientOf(t, h.tenant(t, "two/").Endpoint)
		waiting(t, two, "", 0)
		if h.shape == script.OneShard {
			if ids := listed(t, one); len(ids) != 0 {
				t.Errorf("clients are told of the registration's lease: %x", ids)
			}
		}
	})
}
