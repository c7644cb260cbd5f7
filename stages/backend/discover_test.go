package backend

import (
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"net"
	"os"
	"strings"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/peer"
	"google.golang.org/grpc/status"

	"github.com/sharder/sharder/integration/certs"
	"github.com/sharder/sharder/integration/dnstest"
	"github.com/sharder/sharder/integration/etcdproc"
	"github.com/sharder/sharder/integration/etcdtest"
	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
)

// byDNS is a cluster whose endpoints a name server of the test's gives, without proof.
func byDNS(dns *dnstest.Names) Options {
	return Options{
		DiscoverySRV: "example.com", InsecureDiscovery: true, DiscoveryInterval: 100 * time.Millisecond, Resolver: dns.Resolver(),
	}
}

// record is an SRV record of a member.
func record(t *testing.T, endpoint string, priority, weight uint16) net.SRV {
	t.Helper()
	r := dnstest.Record(t, strings.TrimPrefix(endpoint, "http://"))
	r.Priority, r.Weight = priority, weight
	return r
}

// memberPorts are those of the members there are.
func memberPorts(c *Cluster) string {
	var all []string
	for _, m := range c.Members() {
		_, port, _ := net.SplitHostPort(m.Endpoint)
		all = append(all, port)
	}
	return strings.Join(all, " ")
}

// portsOf are those of records.
func portsOf(records ...net.SRV) string {
	var all []string
	for _, r := range records {
		all = append(all, fmt.Sprint(r.Port))
	}
	return strings.Join(all, " ")
}

// at is what is known of the member with a port.
func at(c *Cluster, port string) *condition {
	for _, s := range c.roster.Load().seats {
		if strings.HasSuffix(s.endpoint, ":"+port) {
			return s.now()
		}
	}
	return &condition{}
}

// shares counts which member answers how many of n calls. They are such as need no leader.
func shares(t *testing.T, c *Cluster, n int) map[string]int {
	t.Helper()
	count := map[string]int{}
	for range n {
		var at peer.Peer
		if _, err := pb.NewKVClient(c).Range(within(t, 30*time.Second), &pb.RangeRequest{Key: []byte("k"), Serializable: true}, grpc.Peer(&at)); err != nil {
			t.Fatal(err)
		}
		_, port, _ := net.SplitHostPort(at.Addr.String())
		count[port]++
	}
	return count
}

func TestMembersAreFoundByDNSAndLookedUpAgain(t *testing.T) {
	t.Parallel()
	p := etcdproc.Start(t, 3)
	dns := dnstest.New(t)
	a, b, other := record(t, p.Endpoint(0), 0, 0), record(t, p.Endpoint(1), 0, 0), record(t, p.Endpoint(2), 0, 0)
	c := open(t, byDNS(dns))
	began := time.Now()
	err := put(within(t, 30*time.Second), c, "k", "v")
	if status.Code(err) != codes.Unavailable || !strings.Contains(err.Error(), "no endpoint was found: no SRV record for etcd-client-ssl or etcd-client in example.com") || time.Since(began) > 15*time.Second {
		t.Fatalf("after %v: %v", time.Since(began), err)
	}
	dns.Set("etcd-client", a, b)
	eventually(t, 30*time.Second, "both are found", func() bool { return len(c.Members()) == 2 && allUp(c) })
	l := during(t, p, c, func() {
		dns.Set("etcd-client", b, other)
		eventually(t, 30*time.Second, "the records are looked up again", func() bool { p := memberPorts(c); return p == portsOf(b, other) || p == portsOf(other, b) })
		dns.Break("etcd-client")
		asked := dns.Asked()
		eventually(t, 30*time.Second, "lookups fail", func() bool { return dns.Asked() > asked+6 })
		dns.Set("etcd-client")
		asked = dns.Asked()
		eventually(t, 30*time.Second, "lookups find nothing", func() bool { return dns.Asked() > asked+6 })
		if len(c.Members()) != 2 {
			t.Errorf("what is not found any more is taken away: %s", memberPorts(c))
		}
	})
	if n := len(l.failed); n > 0 {
		t.Errorf("%d writes failed", n)
	}
	if err := c.Replace([]string{"127.0.0.1:1"}); err == nil {
		t.Error("endpoints that are discovered can't be replaced")
	}
}

func TestOnlyTheBestPriorityThatIsHealthyIsUsed(t *testing.T) {
	t.Parallel()
	p := etcdproc.Start(t, 3)
	dns := dnstest.New(t)
	first, second, third := record(t, p.Endpoint(0), 10, 5), record(t, p.Endpoint(1), 10, 5), record(t, p.Endpoint(2), 20, 100)
	dns.Set("etcd-client", third, first, second)
	c := closing(t, byDNS(dns))
	settle(t, c, "all answer", func() bool { return len(c.Members()) == 3 && allAble(c) })
	if got := shares(t, c, 40); got[portsOf(first)] != 20 || got[portsOf(second)] != 20 {
		t.Errorf("%v; the third is for when none of the others answers", got)
	}
	p.Pause(0) // it may lead: what the others do then is their affair
	settle(t, c, "one is down, and the other has a leader", func() bool {
		gone, next := at(c, portsOf(first)), at(c, portsOf(second))
		return gone.health == down && next.health == up && next.able()
	})
	if got := shares(t, c, 20); got[portsOf(second)] != 20 {
		t.Errorf("%v; want all on the second", got)
	}
	p.Resume(0)
	third.Priority = 1
	dns.Set("etcd-client", third, first, second)
	settle(t, c, "it is back, and the priority is another one", func() bool {
		return allAble(c) && c.roster.Load().seats[0].priority == 1
	})
	if got := shares(t, c, 4); got[portsOf(third)] != 4 {
		t.Errorf("%v; want all on the third", got)
	}
	// A member of the best class that can't serve everything doesn't keep the others out.
	c.roster.Load().seats[0].member.change(func(c *condition) { c.stalled = true }) // until it is probed
	if got := shares(t, c, 2); got[portsOf(third)] != 0 {
		t.Errorf("%v: a member that serves nothing is preferred", got)
	}
}

func TestCallsAreSpreadInProportionToTheWeights(t *testing.T) {
	t.Parallel()
	p := etcdproc.Start(t, 3)
	dns := dnstest.New(t)
	light, heavy, none := record(t, p.Endpoint(0), 1, 10), record(t, p.Endpoint(1), 1, 30), record(t, p.Endpoint(2), 1, 0)
	dns.Set("etcd-client", light, heavy, none)
	c := closing(t, byDNS(dns))
	settle(t, c, "all answer", func() bool { return len(c.Members()) == 3 && allAble(c) })
	const n = 2000
	got := shares(t, c, n) // 500 expected for the light one, give or take five standard deviations of 19.4
	if l, h := got[portsOf(light)], got[portsOf(heavy)]; l < 400 || l > 600 || h < 1400 || got[portsOf(none)] > 20 {
		t.Errorf("%v", got)
	}
}

// Without insecure discovery whoever can write a record could lead sharder anywhere.
func TestDiscoveredMembersProveThatTheyBelongToTheDomain(t *testing.T) {
	t.Parallel()
	ca, other := certs.New(t, "ours"), certs.New(t, "other")
	serve := func(ca *certs.Authority, names ...string) string {
		cert, key := ca.IssueFor(names[0], names...)
		return etcdtest.Start(t, withTLS("", cert, key)).Endpoint
	}
	good, stranger := serve(ca, "example.com"), serve(ca, "elsewhere.com")
	forged := serve(other, "example.com")
	plain := etcdtest.Start(t)
	text, err := os.ReadFile(ca.File)
	if err != nil {
		t.Fatal(err)
	}
	roots := x509.NewCertPool()
	roots.AppendCertsFromPEM(text)
	dns := dnstest.New(t)
	dns.Set("etcd-client", record(t, plain.Endpoint, 0, 0))
	dns.Set("etcd-client-ssl", record(t, good, 0, 0), record(t, stranger, 0, 0), record(t, forged, 0, 0))
	o := byDNS(dns)
	o.InsecureDiscovery = false
	for _, name := range []string{"", "localhost"} { // the second is in all certificates
		o.TLS = &tls.Config{RootCAs: roots, ServerName: name}
		c := open(t, o)
		var all []MemberStatus
		eventually(t, 30*time.Second, "all have been looked at", func() bool { // and not just been silent for a second
			all = c.Members()
			looked := 0
			for _, m := range all {
				if m.Healthy || m.Err != nil && !strings.Contains(m.Err.Error(), "no answer to") {
					looked++
				}
			}
			return looked == 3
		})
		for _, m := range all {
			_, port, _ := net.SplitHostPort(m.Endpoint)
			switch {
			case strings.HasSuffix(good, ":"+port):
				if !m.Healthy {
					t.Errorf("the good one: %v", m.Err)
				}
			case m.Healthy || !strings.Contains(m.Err.Error(), "certificate"):
				t.Errorf("%s is let in: %+v", m.Endpoint, m)
			}
		}
		for range 10 {
			if err := put(within(t, 30*time.Second), c, "k", "v"); err != nil {
				t.Fatal(err)
			}
		}
	}
	// What is found in the clear is not used where TLS is configured, with or without proof.
	o.InsecureDiscovery = true
	c := open(t, o)
	eventually(t, 30*time.Second, "members are found", func() bool { return len(c.Members()) == 3 })
	if strings.Contains(memberPorts(c), portsOf(record(t, plain.Endpoint, 0, 0))) {
		t.Error("the one in the clear is used")
	}
	// Without TLS both kinds are used, each as it was found.
	o.TLS = nil
	dns.Set("etcd-client-ssl")
	c = open(t, o)
	if err := put(within(t, 30*time.Second), c, "k", "v"); err != nil {
		t.Error(err)
	}
}
