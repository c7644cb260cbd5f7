package members

import (
	"slices"
	"testing"
	"time"

	"github.com/sharder/sharder/integration/etcdtest"
	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	clientv3 "go.etcd.io/etcd/client/v3"
)

// registered waits until a sharder is told of by others, under these addresses.
func registered(t *testing.T, reader *Registry, want ...string) {
	t.Helper()
	var have []string
	var last error
	defer func() {
		if t.Failed() {
			t.Logf("%q is there, wanted is %q, the last error %v", have, want, last)
		}
	}()
	eventually(t, "the registrations are as they should be", func() bool {
		var l listing
		if l, last = reader.list(t.Context(), true); last != nil {
			return false // its connection may come back later than the etcd
		}
		have = nil
		for _, e := range l.entries {
			have = append(have, e.url)
		}
		return slices.Equal(have, want)
	})
}

func TestShardersSeeEachOtherAndThemselves(t *testing.T) {
	e := etcdtest.Start(t)
	a, b := registry(e, "a", "10.0.0.1:2379", "https://a.example.com:2379"), registry(e, "b", "10.0.0.2:2379")
	stopA := run(t, a)
	run(t, b)
	all := []string{"http://10.0.0.1:2379", "http://10.0.0.2:2379", "https://a.example.com:2379"}
	registered(t, b, all...)
	for _, r := range []*Registry{a, b} {
		resp, urls := answer(t, r)
		slices.Sort(urls)
		if len(resp.Members) != 2 || !slices.Equal(urls, all) || resp.Members[0].Name != "a" || resp.Members[0].ID == resp.Members[1].ID {
			t.Errorf("%v", resp.Members)
		}
		if h := resp.Header; h.ClusterId == 0 || h.MemberId == 0 || h.RaftTerm == 0 || h.Revision < 4 {
			t.Errorf("header %v", h)
		}
	}
	again, _ := answer(t, registry(e, "b", "10.0.0.2:2379")) // as after a restart
	before, _ := answer(t, b)
	if again.Members[1].ID != before.Members[1].ID {
		t.Errorf("the id changed: %v, %v", again.Members, before.Members)
	}
	stopA()
	if _, urls := answer(t, b); !slices.Equal(urls, []string{"http://10.0.0.2:2379"}) {
		t.Errorf("after one has left: %q", urls)
	}
	if _, urls := answer(t, a); !slices.Equal(urls, []string{"http://10.0.0.2:2379"}) {
		t.Errorf("it has left, and tells its clients of %q", urls)
	}
	leases, err := e.Client().Leases(t.Context())
	if err != nil || len(leases.Leases) != 1 {
		t.Errorf("leases are left behind: %v, %v", leases, err)
	}
}

func TestOneThatIsNotRegisteredYetIsInItsOwnAnswer(t *testing.T) {
	e := etcdtest.Start(t)
	run(t, registry(e, "b", "10.0.0.2:2379"))
	a := registry(e, "a", "10.0.0.1:2379")
	registered(t, a, "http://10.0.0.2:2379")
	if _, urls := answer(t, a); !slices.Equal(urls, []string{"http://10.0.0.1:2379", "http://10.0.0.2:2379"}) {
		t.Errorf("%q", urls)
	}
}

func TestTheLastOneThatLeavesStillTellsOfItself(t *testing.T) {
	e := etcdtest.Start(t)
	a := registry(e, "a", "10.0.0.1:2379")
	stop := run(t, a)
	registered(t, a, "http://10.0.0.1:2379")
	stop()
	registered(t, a)
	// A client of etcd takes an empty answer for the end of all endpoints.
	if _, urls := answer(t, a); !slices.Equal(urls, []string{"http://10.0.0.1:2379"}) {
		t.Errorf("%q", urls)
	}
}

func TestARegistrationThatIsLostIsMadeAgain(t *testing.T) {
	t.Parallel()
	e := etcdtest.Start(t)
	a := renewed(e, 6*time.Second, "a", "10.0.0.1:2379", "10.0.0.1:2380")
	run(t, a)
	both := []string{"http://10.0.0.1:2379", "http://10.0.0.1:2380"}
	registered(t, a, both...)
	c := e.Client()
	lease := func() clientv3.LeaseID {
		g, err := c.Get(t.Context(), place+"/10.0.0.1:2379")
		if err != nil || len(g.Kvs) == 0 {
			return 0
		}
		return clientv3.LeaseID(g.Kvs[0].Lease)
	}
	first := lease()
	if _, err := c.Delete(t.Context(), place+"/10.0.0.1:2379"); err != nil {
		t.Fatal(err)
	}
	registered(t, a, both...)
	if lease() != first {
		t.Error("a key that was deleted came back under another lease")
	}
	if _, err := c.Revoke(t.Context(), first); err != nil {
		t.Fatal(err)
	}
	registered(t, a, both...)
	if l := lease(); l == first || l == 0 {
		t.Errorf("the lease is %x, it was %x", l, first)
	}
	e.Restart()
	registered(t, a, both...)
	begin, err := c.Get(t.Context(), "x")
	if err != nil {
		t.Fatal(err)
	}
	eventually(t, "its lease is renewed", func() bool {
		l, err := c.TimeToLive(t.Context(), lease())
		return err == nil && l.TTL > 0
	})
	if end, err := c.Get(t.Context(), "x"); err != nil || end.Header.Revision != begin.Header.Revision {
		t.Errorf("it writes when there is nothing to write: %v, %v", end, err)
	}
}

func TestShardersWithOneAddressShareIt(t *testing.T) {
	t.Parallel()
	e := etcdtest.Start(t)
	a, b := renewed(e, 6*time.Second, "a", "lb:2379"), registry(e, "b", "lb:2379")
	stopA := run(t, a)
	registered(t, b, "http://lb:2379")
	stopB := run(t, b)
	c := e.Client()
	eventually(t, "the second one has written", func() bool {
		g, err := c.Get(t.Context(), place+"/lb:2379")
		return err == nil && len(g.Kvs) == 1 && g.Kvs[0].Version >= 2
	})
	if resp, _ := answer(t, a); len(resp.Members) != 1 {
		t.Errorf("%v", resp.Members)
	}
	stopB()
	registered(t, a, "http://lb:2379") // the first one writes it anew
	stopA()
	registered(t, a)
}

func TestWhatElseIsUnderThePrefixDoesNoHarm(t *testing.T) {
	e := etcdtest.Start(t)
	c := e.Client()
	for key, value := range map[string]string{
		"/0": "", "/1": "null", "/2": "[]", "/3": `{"Op":0}`, "/4": `{"Addr":"h:1","Op":1}`, "/5": `{"Addr":5}`,
		"/6": `{"Addr":"no port"}`, "/7": `{"Addr":"0.0.0.0:2379"}`, "/8": `{"Addr":"ftp://h:1"}`, "/9": "\xff\x00",
		"/a": `{"Addr":"h1:1","Metadata":null}`, "/b": `{"Addr":"h2:1","Metadata":"not JSON"}`, "/c": `{"Addr":"http://h3:1","Metadata":{"name":5}}`,
		"/d": `{"Addr":"unix:///run/x.sock"}`, "": `{"Addr":"h4:1"}`, "0": `{"Addr":"h5:1"}`,
	} {
		if _, err := c.Put(t.Context(), place+key, value); err != nil {
			t.Fatal(err)
		}
	}
	_, urls := answer(t, registry(e, "a", "10.0.0.1:2379"))
	if want := []string{"h1:1", "h2:1", "http://10.0.0.1:2379", "http://h3:1", "unix:///run/x.sock"}; !slices.Equal(urls, want) {
		t.Errorf("have %q\nwant %q", urls, want)
	}
}

func TestAnAnswerThatNeedNotBeNewNeedsNoQuorum(t *testing.T) {
	e := etcdtest.Start(t)
	asked := 0
	r := registry(e, "a")
	l := &List{Self: Self{Name: "a", Addresses: []string{"10.0.0.1:1"}}, Registry: r}
	r.o.KV = counting{r.o.KV, func(r *pb.RangeRequest) {
		if r.Serializable {
			asked++
		}
	}}
	for _, linearizable := range []bool{true, false, false} {
		if _, err := l.Answer(t.Context(), &pb.MemberListRequest{Linearizable: linearizable}); err != nil {
			t.Fatal(err)
		}
	}
	if asked != 2 {
		t.Errorf("%d of 2 reads were serializable", asked)
	}
}
