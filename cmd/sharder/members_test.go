package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/sharder/sharder/integration/etcdtest"
	"github.com/sharder/sharder/integration/ports"
	"github.com/sharder/sharder/stages"
	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"
	clientv3 "go.etcd.io/etcd/client/v3"
	"go.etcd.io/etcd/server/v3/embed"
)

// startAdvertised runs a sharder that registers the address at which it serves.
func startAdvertised(t *testing.T, toml string) *sharderRun {
	t.Helper()
	at := ports.Of(t)
	return startAt(t, at, fmt.Sprintf("advertise = [%q]\n%s", at, toml))
}

// told gives what MemberList answers, and the client addresses in it, once it answers.
func told(t *testing.T, r *sharderRun) (resp *pb.MemberListResponse, urls []string) {
	t.Helper()
	cluster := pb.NewClusterClient(r.conn())
	within(t, 30*time.Second, func() (err error) {
		ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
		defer cancel()
		resp, err = cluster.MemberList(ctx, &pb.MemberListRequest{Linearizable: true})
		return err
	})
	for _, m := range resp.Members {
		urls = append(urls, m.ClientURLs...)
		if m.ID == 0 || m.Name == "" || len(m.PeerURLs) > 0 {
			t.Errorf("%v", m)
		}
	}
	return resp, urls
}

// tellEachOther waits until a sharder tells of exactly these.
func tellEachOther(t *testing.T, r *sharderRun, all ...*sharderRun) {
	t.Helper()
	var want []string
	for _, a := range all {
		want = append(want, "http://"+a.endpoint)
	}
	slices.Sort(want)
	within(t, time.Minute, func() error {
		if _, urls := told(t, r); !slices.Equal(urls, want) {
			return fmt.Errorf("it tells of %q, not %q", urls, want)
		}
		return nil
	})
}

func TestMemberListIsThisSharderAloneIfNobodyIsRegistered(t *testing.T) {
	t.Parallel()
	order, a, b := clusters(t)
	a1, b1 := etcdtest.Start(t), etcdtest.Start(t)
	for shape, toml := range map[string]string{
		"A": fmt.Sprintf("[shards.a]\nendpoints = [%q]\n", etcdtest.Start(t).Endpoint),
		"B": external(a1.Endpoint, b1.Endpoint), "C": underOrder(order, a, b),
	} {
		r := start(t, toml)
		resp, urls := told(t, r)
		if !slices.Equal(urls, []string{"http://" + r.endpoint}) || resp.Header.ClusterId == 0 || resp.Header.MemberId == 0 || resp.Header.RaftTerm == 0 {
			t.Errorf("%s: %v", shape, resp)
		}
		if shape != "A" && resp.Header.Revision == 0 {
			t.Errorf("%s has no revision: %v", shape, resp.Header)
		}
	}
	for _, e := range []*etcdtest.Etcd{order, a1} { // the registry of C and B
		g, err := e.Client().Get(t.Context(), stages.MembersPrefix, clientv3.WithPrefix())
		if err != nil || g.Count != 0 {
			t.Errorf("a sharder without an address for others has registered: %v, %v", g, err)
		}
	}
}

func TestShardersOfOneShardRegisterUnderAPrefix(t *testing.T) {
	t.Parallel()
	e := etcdtest.Start(t)
	toml := fmt.Sprintf("[registration]\nprefix = \"proxies\"\nttl = \"60s\"\n[shards.a]\nendpoints = [%q]\n", e.Endpoint)
	r1, r2 := startAdvertised(t, toml), startAdvertised(t, toml)
	tellEachOther(t, r1, r1, r2)
	tellEachOther(t, r2, r1, r2)
	g, err := e.Client().Get(t.Context(), "", clientv3.WithFromKey())
	if err != nil || len(g.Kvs) != 2 || !strings.HasPrefix(string(g.Kvs[0].Key), "proxies/127.0.0.1:") {
		t.Fatalf("%v, %v", g, err)
	}
	resp, _ := told(t, r1)
	if want := g.Header; resp.Header.ClusterId != want.ClusterId || resp.Header.MemberId != want.MemberId || resp.Header.Revision != want.Revision || resp.Header.RaftTerm != want.RaftTerm {
		t.Errorf("header %v, the shard's is %v", resp.Header, want)
	}
	if err := r1.end(); err != nil {
		t.Fatal(err)
	}
	tellEachOther(t, r2, r2)
}

func TestShardersUnderOneOrderKnowOfEachOtherAndUseNoRevision(t *testing.T) {
	t.Parallel()
	order, a, b := clusters(t)
	toml := underOrder(order, a, b)
	r1, r2 := startAdvertised(t, toml), startAdvertised(t, toml)
	tellEachOther(t, r1, r1, r2)
	c := r1.client()
	if rev := putAt(t, c, "a"); rev != 2 {
		t.Errorf("the first put is at revision %d", rev)
	}
	if err := r2.end(); err != nil {
		t.Fatal(err)
	}
	tellEachOther(t, r1, r1)
	if rev := putAt(t, c, "z"); rev != 3 {
		t.Errorf("the second put is at revision %d", rev)
	}
	resp, _ := told(t, r1)
	if resp.Header.Revision != 3 {
		t.Errorf("header %v", resp.Header)
	}
	noOwnLease(t, c)
}

func TestShardersOverIndependentShardsKnowOfEachOther(t *testing.T) {
	t.Parallel()
	a, b := etcdtest.Start(t), etcdtest.Start(t)
	toml := external(a.Endpoint, b.Endpoint)
	r1 := startAdvertised(t, toml)
	tellEachOther(t, r1, r1)
	r2 := startAdvertised(t, toml) // sweeps the leases of the shards when it starts
	tellEachOther(t, r2, r1, r2)
	for _, r := range []*sharderRun{r1, r2} {
		noOwnLease(t, r.client())
	}
	g, err := r1.client().Get(t.Context(), "", clientv3.WithFromKey())
	if err != nil || g.Count != 0 {
		t.Errorf("clients see what sharder has written: %v, %v", g, err)
	}
}

// noOwnLease wants clients to see none of the leases under which sharders register.
func noOwnLease(t *testing.T, c *clientv3.Client) {
	t.Helper()
	own, err := c.Leases(t.Context())
	if err != nil || len(own.Leases) != 0 {
		t.Errorf("%v, %v", own, err)
	}
}

func TestShardersOverSeveralShardsRegisterUnderAPrefixAsClientsDo(t *testing.T) {
	t.Parallel()
	order, a, b := clusters(t)
	toml := "[registration]\nprefix = \"proxies\"\nttl = \"60s\"\n" + underOrder(order, a, b)
	r1, r2 := startAdvertised(t, toml), startAdvertised(t, toml)
	tellEachOther(t, r1, r1, r2)
	c := r1.client()
	within(t, 30*time.Second, func() error { // each lists itself before it is registered
		g, err := c.Get(t.Context(), "proxies/", clientv3.WithPrefix())
		if err != nil || len(g.Kvs) != 2 || g.Kvs[0].Lease == 0 {
			return fmt.Errorf("%v, %w", g, err)
		}
		return nil
	})
	if err := r2.end(); err != nil {
		t.Fatal(err)
	}
	tellEachOther(t, r1, r1)
	if g, err := c.Get(t.Context(), "proxies/", clientv3.WithPrefix()); err != nil || len(g.Kvs) != 1 {
		t.Errorf("%v, %v", g, err)
	}
}

func TestAShardSaysWhoMayKnowItsMembers(t *testing.T) {
	t.Parallel()
	e := etcdtest.Start(t, cheap)
	c := e.Client()
	enableAuth(t, c)
	r := start(t, fmt.Sprintf("[shards.a]\nendpoints = [%q]\n", e.Endpoint))
	_, want := pb.NewClusterClient(e.Conn()).MemberList(t.Context(), &pb.MemberListRequest{Linearizable: true})
	_, err := pb.NewClusterClient(r.conn()).MemberList(t.Context(), &pb.MemberListRequest{Linearizable: true})
	if status.Code(want) == codes.OK || status.Code(err) != status.Code(want) || status.Convert(err).Message() != status.Convert(want).Message() {
		t.Errorf("got %v, the etcd says %v", err, want)
	}
	known, err := clientv3.New(clientv3.Config{Endpoints: []string{r.up()}, Username: "root", Password: "pw"})
	if err != nil {
		t.Fatal(err)
	}
	defer known.Close()
	if l, err := known.MemberList(t.Context()); err != nil || len(l.Members) != 1 || l.Members[0].ClientURLs[0] != "http://"+r.endpoint {
		t.Errorf("%v, %v", l, err)
	}
}

func TestRegistrationIsByShardersOwnUser(t *testing.T) {
	t.Parallel()
	e := etcdtest.Start(t, cheap)
	c := e.Client()
	ctx := t.Context()
	_, err := c.UserAdd(ctx, "sharder", "secret")
	if err == nil {
		_, err = c.RoleAdd(ctx, "sharder")
	}
	if err == nil {
		_, err = c.RoleGrantPermission(ctx, "sharder", "proxies/", "proxies0", clientv3.PermissionType(clientv3.PermReadWrite))
	}
	if err == nil {
		_, err = c.UserGrantRole(ctx, "sharder", "sharder")
	}
	if err != nil {
		t.Fatal(err)
	}
	enableAuth(t, c)
	password := filepath.Join(t.TempDir(), "password")
	if err := os.WriteFile(password, []byte("secret\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	shard := fmt.Sprintf("[shards.a]\nendpoints = [%q]\n", e.Endpoint)
	registration := "[registration]\nprefix = \"proxies\"\nttl = \"60s\"\n"
	r := startAdvertised(t, registration+shard+fmt.Sprintf("username = \"sharder\"\npassword_file = %q\n", password))
	root, err := clientv3.New(clientv3.Config{Endpoints: []string{r.up()}, Username: "root", Password: "pw"})
	if err != nil {
		t.Fatal(err)
	}
	defer root.Close()
	within(t, 30*time.Second, func() error {
		g, err := root.Get(ctx, "proxies/", clientv3.WithPrefix(), clientv3.WithCountOnly())
		if err == nil && g.Count != 1 {
			err = errors.New("it is not registered")
		}
		return err
	})
	if l, err := root.MemberList(ctx); err != nil || len(l.Members) != 1 {
		t.Errorf("%v, %v", l, err)
	}
	// A sharder without a user of its own says whose fault it is.
	nobody := startAdvertised(t, registration+shard)
	within(t, 30*time.Second, func() error {
		if log := nobody.log.String(); !strings.Contains(log, "this sharder is not registered") || !strings.Contains(log, "user name is empty") {
			return errors.New("it does not say that it can't register: " + log)
		}
		return nil
	})
	asked, err := clientv3.New(clientv3.Config{Endpoints: []string{nobody.up()}, Username: "root", Password: "pw"})
	if err != nil {
		t.Fatal(err)
	}
	defer asked.Close()
	if _, err := asked.MemberList(ctx); status.Code(err) != codes.FailedPrecondition || !strings.Contains(err.Error(), "sharder: it may not read who is registered") {
		t.Errorf("%v", err)
	}
}

// cheap has an etcd spend as little as it can on passwords: what it spends by default takes seconds with the
// race detector, and nobody else is served meanwhile.
func cheap(c *embed.Config) { c.BcryptCost = 4 }

// enableAuth switches authentication on, with a root whose password is pw. Of several members none need lead
// at the moment; what was refused then may have been done.
func enableAuth(t *testing.T, c *clientv3.Client) {
	t.Helper()
	for _, step := range []struct {
		do   func() error
		done error
	}{
		{func() error { _, err := c.UserAdd(t.Context(), "root", "pw"); return err }, rpctypes.ErrUserAlreadyExist},
		{func() error { _, err := c.UserGrantRole(t.Context(), "root", "root"); return err }, nil},
		{func() error { _, err := c.AuthEnable(t.Context()); return err }, rpctypes.ErrUserEmpty},
	} {
		within(t, 30*time.Second, func() error {
			if err := step.do(); err != step.done {
				return err
			}
			return nil
		})
	}
}

func TestTheMembersOfTheShardArePassedOnIfThatIsWanted(t *testing.T) {
	t.Parallel()
	e := etcdtest.Start(t)
	r := start(t, fmt.Sprintf("members = \"shard\"\n[shards.a]\nendpoints = [%q]\n", e.Endpoint))
	c := r.client()
	want, err := e.Client().MemberList(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	have, err := c.MemberList(t.Context())
	if err != nil || len(have.Members) != 1 || have.Members[0].ID != want.Members[0].ID || len(have.Members[0].PeerURLs) != 1 {
		t.Errorf("%v, %v", have, err)
	}
	again := startAdvertised(t, fmt.Sprintf("members = \"shard\"\n[registration]\nprefix = \"p\"\nttl = \"60s\"\n[shards.a]\nendpoints = [%q]\n", e.Endpoint))
	within(t, 30*time.Second, func() error { // others may still look for it
		g, err := c.Get(t.Context(), "p/"+again.endpoint)
		if err == nil && len(g.Kvs) != 1 {
			err = errors.New("it is not registered")
		}
		return err
	})
	_, err = c.MemberRemove(t.Context(), 1)
	if err == nil || err.Error() != rpctypes.ErrMemberNotFound.Error() {
		t.Errorf("%v", err)
	}
}

// Clients have to be told of a sharder's end while it still answers them.
func TestADrainBeginsWithLeavingTheOthers(t *testing.T) {
	t.Parallel()
	order, a, b := clusters(t)
	toml := "drain_timeout = \"2m\"\n" + underOrder(order, a, b)
	r, other := startAdvertised(t, toml), startAdvertised(t, toml)
	tellEachOther(t, other, r, other)
	c := r.client()
	for i := range 4 { // more than fits into the buffers of a connection
		if _, err := c.Put(t.Context(), fmt.Sprint("a", i), string(make([]byte, 1<<20))); err != nil {
			t.Fatal(err)
		}
	}
	held, let := context.WithCancel(naming(t.Context(), "a", "leader"))
	defer let()
	s, err := pb.NewMaintenanceClient(r.conn()).Snapshot(held, &pb.SnapshotRequest{})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := s.Recv(); err != nil { // and the rest is not read: it is in flight as long as the drain waits
		t.Fatal(err)
	}
	r.stop()
	began := time.Now()
	tellEachOther(t, other, other)
	if took := time.Since(began); took > time.Minute { // the drain's bound is two
		t.Errorf("others tell of it %v into the drain", took)
	}
	let()
	if err := r.end(); err != nil {
		t.Error(err)
	}
}

func TestAProxyRegistersWhereItListens(t *testing.T) {
	for _, c := range []struct {
		flags []string
		code  int
		want  string
	}{
		{nil, 0, `advertise = ["127.0.0.1:23790"]`},
		{[]string{"--listen-addr", "10.0.0.1:2379"}, 0, `advertise = ["10.0.0.1:2379"]`},
		{[]string{"--advertise-client-url", "http://lb:2379"}, 0, `advertise = ["lb:2379"]`},
		{[]string{"--listen-addr", ":2379"}, exitMisused, "there is no address to register"},
	} {
		var stdout, stderr strings.Builder
		args := append([]string{"grpc-proxy", "start", "--print-config", "--resolver-prefix", "p", "--resolver-ttl", "5"}, c.flags...)
		if code := run(args, &stdout, &stderr); code != c.code || !strings.Contains(stdout.String()+stderr.String(), c.want) {
			t.Errorf("%q: exit %d, %s%s", args, code, stdout.String(), stderr.String())
		}
	}
}
