package backend

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/sourcegraph/conc"
	"google.golang.org/grpc"

	"github.com/sharder/sharder/integration/etcdtest"
	"github.com/sharder/sharder/integration/ports"
	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
)

// stamps are what two shards of one configuration should carry.
func stamps(routes ...string) []Stamp {
	print := fmt.Sprintf("f%d", len(strings.Join(routes, "\n")))
	return []Stamp{
		{Shard: "a", Fingerprint: print, Home: "a", Routes: routes},
		{Shard: "b", Fingerprint: print, Home: "a", Routes: routes},
	}
}

// twoShards gives connections to two etcds nobody has used.
func twoShards(t *testing.T) []grpc.ClientConnInterface {
	t.Helper()
	return []grpc.ClientConnInterface{etcdtest.Start(t).Conn(), etcdtest.Start(t).Conn()}
}

func TestAStampIsWrittenOnceAndFoundAgain(t *testing.T) {
	e := etcdtest.Start(t)
	want := Stamp{Deployment: "d1", Shard: "a", Fingerprint: "f1", Home: "a", Routes: []string{`"" = a`}}
	for range 3 {
		got, err := CheckStamp(within(t, 30*time.Second), e.Conn(), want)
		if err != nil || got.Deployment != "d1" || len(got.Routes) != 1 {
			t.Fatalf("%+v, %v", got, err)
		}
	}
	r, err := pb.NewKVClient(e.Conn()).Range(within(t, 30*time.Second), &pb.RangeRequest{Key: []byte("\x00sharder/stamp")})
	if err != nil || len(r.Kvs) != 1 || r.Kvs[0].Version != 1 {
		t.Errorf("%v, %v", r, err)
	}
}

func TestAMismatchIsADiffWithARemedy(t *testing.T) {
	e := etcdtest.Start(t)
	have := Stamp{Deployment: "d1", Shard: "a", Fingerprint: "f1", Home: "a", Routes: []string{`"" = a`, `"m" = b`, `"x" = c`}}
	if _, err := CheckStamp(within(t, 30*time.Second), e.Conn(), have); err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		edit func(*Stamp)
		want []string
		not  string
	}{
		{func(s *Stamp) { s.Deployment = "d2" }, []string{"- deployment: d1", "+ deployment: d2", "correct the endpoints of [shards.a]"}, "fingerprint"},
		{func(s *Stamp) { s.Shard = "z" }, []string{"- shard: a", "+ shard: z", "[shards.z] and [shards.a] are mixed up"}, "deployment: "},
		{func(s *Stamp) { s.Home = "b" }, []string{"- home of leases: a", "+ home of leases: b", `leases live on shard "a"`}, "fingerprint"},
		{func(s *Stamp) { s.Fingerprint, s.Routes = "f2", []string{`"" = a`, `"n" = b`, `"x" = c`} },
			[]string{"- routes fingerprint: f1", `    - "m" = b`, `    + "n" = b`, "give this sharder the [routes]"}, `"x" = c`},
		{func(s *Stamp) { s.Fingerprint = "f2" }, []string{"the routes read the same"}, `"m"`},
	} {
		want := have
		c.edit(&want)
		got, err := CheckStamp(within(t, 30*time.Second), e.Conn(), want)
		mismatch := new(StampMismatch)
		if !errors.As(err, &mismatch) || got.Deployment != "d1" {
			t.Errorf("%+v: %+v, %v", want, got, err)
			continue
		}
		for _, line := range c.want {
			if !strings.Contains(err.Error(), line) {
				t.Errorf("%q is missing in\n%v", line, err)
			}
		}
		if strings.Contains(err.Error(), c.not) {
			t.Errorf("%q is in\n%v", c.not, err)
		}
	}
	// What people read does not decide.
	same := have
	same.Routes = nil
	if _, err := CheckStamp(within(t, 30*time.Second), e.Conn(), same); err != nil {
		t.Error(err)
	}
}

func TestALongDiffIsCut(t *testing.T) {
	var many []string
	for i := range 500 {
		many = append(many, fmt.Sprintf("%q = a", fmt.Sprint(i)))
	}
	lines := diffLines(many, nil)
	if len(lines) != maxDiffLines+1 || lines[maxDiffLines] != "… and 460 lines more" {
		t.Errorf("%d lines, the last %q", len(lines), lines[len(lines)-1])
	}
}

func TestAStampOfAnotherKindIsNotOverwritten(t *testing.T) {
	for text, want := range map[string]string{"hello": "holds no stamp", `{"version":2}`: "version 2"} {
		e := etcdtest.Start(t)
		if _, err := pb.NewKVClient(e.Conn()).Put(within(t, 30*time.Second), &pb.PutRequest{Key: []byte(stampKey), Value: []byte(text)}); err != nil {
			t.Fatal(err)
		}
		if _, err := CheckStamp(within(t, 30*time.Second), e.Conn(), stamps()[0]); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v", text, err)
		}
		if _, err := Deployment(within(t, 30*time.Second), []grpc.ClientConnInterface{e.Conn()}); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v", text, err)
		}
	}
}

func TestManyShardersStartingAtOnceAgreeOnOneDeployment(t *testing.T) {
	conns := twoShards(t)
	ids := make([]string, 8)
	var wg conc.WaitGroup
	for i := range ids {
		wg.Go(func() {
			id, err := Claim(within(t, 30*time.Second), conns, stamps("r"))
			if err != nil {
				t.Error(err)
			}
			ids[i] = id
		})
	}
	wg.Wait()
	for _, id := range ids {
		if id != ids[0] || len(id) != 32 {
			t.Fatalf("ids %q", ids)
		}
	}
	if id, err := Deployment(within(t, 30*time.Second), conns); err != nil || id != ids[0] {
		t.Errorf("%q, %v", id, err)
	}
}

func TestOfTwoConfigurationsOnlyOneGetsTheShards(t *testing.T) {
	for range 5 {
		conns := twoShards(t)
		errs := make([]error, 2)
		var wg conc.WaitGroup
		for i, routes := range []string{"one", "another"} {
			wg.Go(func() { _, errs[i] = Claim(within(t, 30*time.Second), conns, stamps(routes)) })
		}
		wg.Wait()
		if (errs[0] == nil) == (errs[1] == nil) {
			t.Fatalf("both or none: %v, %v", errs[0], errs[1])
		}
		for i, conn := range conns {
			if _, ok, err := readStamp(within(t, 30*time.Second), conn, "x"); !ok || err != nil {
				t.Errorf("shard %d: %v, %v", i, ok, err)
			}
		}
	}
}

func TestAClaimReportsEveryShardAndWritesNothingAfterAMismatch(t *testing.T) {
	conns := append(twoShards(t), etcdtest.Start(t).Conn())
	if _, err := Claim(within(t, 30*time.Second), conns[:2], stamps("old")); err != nil {
		t.Fatal(err)
	}
	want := append(stamps("newer"), Stamp{Shard: "c", Fingerprint: "f5", Home: "a"})
	_, err := Claim(within(t, 30*time.Second), conns, want)
	if err == nil || !strings.Contains(err.Error(), "shard a is stamped") || !strings.Contains(err.Error(), "shard b is stamped") {
		t.Errorf("got %v", err)
	}
	if _, found, err := readStamp(within(t, 30*time.Second), conns[2], "c"); found || err != nil {
		t.Errorf("the third shard was stamped: %v, %v", found, err)
	}
}

func TestShardsOfTwoDeploymentsAreNamed(t *testing.T) {
	conns := twoShards(t)
	for i, s := range stamps("r") {
		s.Deployment = fmt.Sprintf("d%d", i)
		if _, err := CheckStamp(within(t, 30*time.Second), conns[i], s); err != nil {
			t.Fatal(err)
		}
	}
	_, err := Claim(within(t, 30*time.Second), conns, stamps("r"))
	if err == nil || !strings.Contains(err.Error(), `"a" to d0`) || !strings.Contains(err.Error(), `"b" to d1`) {
		t.Errorf("got %v", err)
	}
}

func TestAShardThatCantBeAskedIsAnErrorThatNamesIt(t *testing.T) {
	c := open(t, Options{Name: "east", Endpoints: []string{ports.Of(t)}})
	_, err := Claim(within(t, 30*time.Second), []grpc.ClientConnInterface{c}, stamps("r")[:1])
	if err == nil || !strings.Contains(err.Error(), "shard east: no member answers") {
		t.Errorf("got %v", err)
	}
	if _, err := Claim(context.Background(), nil, nil); err == nil {
		t.Error("no shards at all are fine")
	}
}

func TestLookingAStampUpWritesNothing(t *testing.T) {
	conn := etcdtest.Start(t).Conn()
	want := stamps("r")[0]
	if got, found, err := LookupStamp(within(t, 30*time.Second), conn, want); found || err != nil {
		t.Errorf("a fresh shard: %+v, %v, %v", got, found, err)
	}
	if _, found, err := readStamp(within(t, 30*time.Second), conn, "a"); found || err != nil {
		t.Errorf("after the first look: %v, %v", found, err)
	}
	have := want
	have.Deployment = "d1"
	if _, err := CheckStamp(within(t, 30*time.Second), conn, have); err != nil {
		t.Fatal(err)
	}
	if got, found, err := LookupStamp(within(t, 30*time.Second), conn, want); !found || err != nil || got.Deployment != "d1" {
		t.Errorf("any deployment: %+v, %v, %v", got, found, err)
	}
	have.Deployment = "d2"
	if _, found, err := LookupStamp(within(t, 30*time.Second), conn, have); !found || !isMismatch(err) {
		t.Errorf("another deployment: %v, %v", found, err)
	}
}
