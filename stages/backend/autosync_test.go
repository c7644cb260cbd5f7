package backend

import (
	"crypto/tls"
	"errors"
	"strings"
	"testing"
	"time"

	"google.golang.org/grpc/codes"

	"github.com/sharder/sharder/integration/dnstest"
	"github.com/sharder/sharder/integration/etcdproc"
	"github.com/sharder/sharder/integration/etcdtest"
	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"
)

func TestTheClusterTellsWhoItsMembersAre(t *testing.T) {
	t.Parallel()
	p := etcdproc.Start(t, 3)
	client := p.Client()
	i, url := p.Spare()
	eventually(t, 30*time.Second, "the members trust each other for long enough", func() bool {
		_, err := client.MemberAddAsLearner(within(t, 30*time.Second), []string{url})
		return err == nil
	})
	p.Launch(i)
	c := open(t, Options{Endpoints: p.Endpoints()[:1], AutoSyncInterval: 200 * time.Millisecond})
	eventually(t, 30*time.Second, "all that vote are members", func() bool { return len(c.Members()) == 3 && allUp(c) })
	time.Sleep(500 * time.Millisecond)
	if memberAt(c, p.Endpoint(i)).Endpoint != "" {
		t.Error("a learner is an endpoint")
	}
	victim := p.Follower()
	list, err := client.MemberList(within(t, 30*time.Second))
	if err != nil {
		t.Fatal(err)
	}
	for _, m := range list.Members {
		if len(m.ClientURLs) == 1 && m.ClientURLs[0] == p.Endpoint(victim) {
			eventually(t, 30*time.Second, "it is removed", func() bool { // which etcd refuses while members have no connection
				_, err := client.MemberRemove(within(t, 30*time.Second), m.ID)
				return err == nil || errors.Is(err, rpctypes.ErrMemberNotFound)
			})
		}
	}
	eventually(t, 30*time.Second, "one that was removed is no endpoint any more", func() bool { return memberAt(c, p.Endpoint(victim)).Endpoint == "" })
	before := p.Elections(victim)
	for range 20 {
		if err := put(within(t, 30*time.Second), c, "k", "v"); err != nil && !(etcdproc.ElectionError(err) && p.Elections(victim) != before) {
			t.Fatal(err)
		}
	}
	// Nobody can tell any more: what is known stays.
	for j := range 3 {
		if j != victim {
			p.Kill(j)
		}
	}
	eventually(t, 30*time.Second, "all are gone", func() bool { return !c.Healthy() })
	time.Sleep(500 * time.Millisecond)
	if n := len(c.Members()); n < 2 {
		t.Errorf("there are %d endpoints left", n)
	}
}

func TestMembersAreAskedForWithShardersOwnCredentials(t *testing.T) {
	t.Parallel()
	p := etcdproc.Start(t, 1)
	enableAuthBy(t, etcdtest.Conn(t, strings.TrimPrefix(p.Endpoint(0), "http://")))
	dns := dnstest.New(t)
	dns.Set("etcd-client", record(t, p.Endpoint(0), 7, 3))
	o := byDNS(dns)
	o.Username, o.Password, o.OwnCallsOnly, o.AutoSyncInterval = "root", "secret", true, 100*time.Millisecond
	c := open(t, o)
	eventually(t, 30*time.Second, "the member is as it says", func() bool { return endpointsAre(c, p.Endpoint(0)) && leaders(c) == 1 })
	wantStatus(t, put(within(t, 30*time.Second), c, "k", "v"), codes.InvalidArgument, "etcdserver: user name is empty")
}

// An address that a cluster tells means something else to each who reads it, such as
// http://localhost:2379: on this machine that may be another cluster.
func TestAnAddressOfAnotherClusterIsNotUsed(t *testing.T) {
	t.Parallel()
	wrong := etcdtest.Start(t)
	p := etcdproc.Start(t, 1, etcdproc.WithArgs("--advertise-client-urls", "http://"+wrong.Endpoint))
	c := open(t, Options{Endpoints: p.Endpoints(), AutoSyncInterval: 100 * time.Millisecond})
	eventually(t, 30*time.Second, "it is looked at", func() bool { return memberAt(c, wrong.Endpoint).Err != nil })
	if m := memberAt(c, wrong.Endpoint); m.Healthy || !strings.Contains(m.Err.Error(), "it is a member of another cluster") {
		t.Errorf("it is %+v", m)
	}
	for i := range 50 {
		if i == 25 {
			p.Kill(0)
		}
		err := put(within(t, 30*time.Second), c, "k", "v")
		if (err == nil) != (i < 25) {
			t.Fatalf("put %d: %v", i, err)
		}
	}
	if r, err := wrong.Client().Get(within(t, 30*time.Second), "k"); err != nil || r.Count > 0 {
		t.Errorf("a key is on the wrong cluster: %v, %v", r, err)
	}
}

func TestURLsOfMembersAreNoWayRoundTheEncryption(t *testing.T) {
	reply := &pb.MemberListResponse{Header: &pb.ResponseHeader{ClusterId: 7}, Members: []*pb.Member{
		{Name: "a", ClientURLs: []string{"https://a:1", "http://a:2/"}},
		{Name: "b", ClientURLs: []string{"http://b:1", "unix://b:2", "https://b:3", "https://b:3"}},
		{Name: "c", ClientURLs: []string{"https://c:1"}, IsLearner: true},
		{ClientURLs: []string{"https://d:1"}},
	}}
	plain, secure := endpoint{addr: "x:1"}, endpoint{addr: "x:2", secure: true}
	known := endpoint{addr: "b:3", secure: true, priority: 4, weight: 2}
	for _, c := range []struct {
		what string
		tls  *tls.Config
		base []endpoint
		want string
	}{
		{"nothing is encrypted", nil, []endpoint{plain}, "a:1 a:2 b:1 b:3"},
		{"https alone", nil, []endpoint{secure}, "a:1 b:3"},
		{"TLS is configured", &tls.Config{}, []endpoint{known}, "a:1 b:3"},
	} {
		cluster, err := Open(Options{Name: "a", Endpoints: []string{"y:1"}, TLS: c.tls})
		if err != nil {
			t.Fatal(err)
		}
		eps, err := cluster.memberEndpoints(reply, c.base)
		var have []string
		for _, e := range eps {
			have = append(have, e.addr)
			if e.addr == "b:3" && c.tls != nil {
				if e != known {
					t.Errorf("%s: what was known of it is forgotten: %+v", c.what, e)
				}
			} else if e.cluster != 7 {
				t.Errorf("%s: %s may be of any cluster", c.what, e.addr)
			}
		}
		if err != nil || strings.Join(have, " ") != c.want {
			t.Errorf("%s: %v, %v", c.what, have, err)
		}
		if _, err := cluster.memberEndpoints(&pb.MemberListResponse{Members: reply.Members[2:]}, c.base); err == nil {
			t.Errorf("%s: an empty set is taken", c.what)
		}
		if err := cluster.Close(); err != nil {
			t.Error(err)
		}
	}
}
