package backend

import (
	"testing"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/metadata"

	"github.com/sharder/sharder/integration/certs"
	"github.com/sharder/sharder/integration/etcdtest"
	"github.com/sharder/sharder/stages"
	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
)

// refused checks that calls of every kind are taken for nobody's.
func refused(t *testing.T, c *Cluster) {
	t.Helper()
	wantStatus(t, put(within(t, 30*time.Second), c, "k", "v"), codes.InvalidArgument, "etcdserver: user name is empty")
	s, err := pb.NewKVClient(c).RangeStream(within(t, 30*time.Second), &pb.RangeRequest{Key: []byte("k")})
	if err == nil {
		_, err = s.Recv()
	}
	wantStatus(t, err, codes.InvalidArgument, "etcdserver: user name is empty")
	w, err := pb.NewWatchClient(c).Watch(within(t, 30*time.Second))
	if err != nil {
		t.Fatal(err)
	}
	create := &pb.WatchRequest{RequestUnion: &pb.WatchRequest_CreateRequest{CreateRequest: &pb.WatchCreateRequest{Key: []byte("k")}}}
	if err := w.Send(create); err != nil {
		t.Fatal(err)
	}
	if r, err := w.Recv(); err != nil || !r.Canceled {
		t.Errorf("a watch of nobody's: %v, %v", r, err)
	}
}

// own checks that sharder itself is let in.
func own(t *testing.T, c *Cluster) {
	t.Helper()
	if err := put(stages.Own(within(t, 30*time.Second)), c, "k", "own"); err != nil {
		t.Errorf("a call of sharder's own: %v", err)
	}
	watchKey(t, stages.Own(within(t, 30*time.Second)), c, "k")
}

func TestClientsDoNotGetTheRightsOfShardersUser(t *testing.T) {
	t.Parallel()
	e := etcdtest.Start(t)
	enableAuth(t, e)
	o := asRoot(e)
	o.OwnCallsOnly = true
	c := serving(t, o)
	refused(t, c)
	own(t, c)
	refused(t, c) // now that there is a token
	eventually(t, 30*time.Second, "the probes are logged in", func() bool { return leaders(c) == 1 })

	reply, err := pb.NewAuthClient(c).Authenticate(within(t, 30*time.Second), &pb.AuthenticateRequest{Name: "root", Password: "secret"})
	if err != nil {
		t.Fatal(err)
	}
	if err := put(metadata.AppendToOutgoingContext(within(t, 30*time.Second), "token", reply.Token), c, "k", "v"); err != nil {
		t.Errorf("a client that is root: %v", err)
	}
}

func TestALeaderThatIsToldToUsersOnlyIsNotCalledAbsent(t *testing.T) {
	t.Parallel()
	e := etcdtest.Start(t)
	enableAuth(t, e)
	c := open(t, Options{Name: "east", Endpoints: []string{e.Endpoint}})
	eventually(t, 30*time.Second, "it answers", c.Healthy)
	_, _, err := statusAt(t, c, stages.Want{Role: stages.RoleLeader})
	wantStatus(t, err, codes.FailedPrecondition, "sharder: shard east: its members tell only users who leads; give sharder one (username)")
}

func TestProbesLogInWhereNobodyElseDoes(t *testing.T) {
	t.Parallel()
	e := etcdtest.Start(t)
	enableAuth(t, e)
	o := asRoot(e)
	o.OwnCallsOnly = true
	c := open(t, o)
	eventually(t, 30*time.Second, "the leader is known", func() bool { return leaders(c) == 1 })
	e.Restart() // which forgets the token
	eventually(t, 30*time.Second, "the restart was noticed", func() bool { return c.Members()[0].ID != 0 && c.Healthy() })
	eventually(t, 30*time.Second, "the leader is known again", func() bool { return leaders(c) == 1 })
}

// etcd takes the name in a client certificate for the user where a call has no token.
func TestClientsDoNotGetTheRightsOfTheNameInShardersCertificate(t *testing.T) {
	t.Parallel()
	ca := certs.New(t, "ours")
	cert, key := ca.Issue("server")
	e := etcdtest.Start(t, withTLS(ca.File, cert, key))
	cert, key = ca.Issue("root")
	conf, err := TLSConfig(ca.File, cert, key, "")
	if err != nil {
		t.Fatal(err)
	}
	o := Options{Endpoints: []string{e.Endpoint}, TLS: conf}
	lent := serving(t, o)
	enableAuthBy(t, lent)
	if err := put(within(t, 30*time.Second), lent, "k", "v"); err != nil {
		t.Fatalf("the certificate is nobody's, and this test shows nothing: %v", err)
	}
	o.OwnCallsOnly = true
	c := serving(t, o)
	refused(t, c)
	own(t, c)
	eventually(t, 30*time.Second, "probes are sharder's own", func() bool { return leaders(c) == 1 })
}
