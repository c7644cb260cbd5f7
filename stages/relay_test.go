package stages_test

import (
	"bytes"
	"crypto/sha256"
	"errors"
	"io"
	"net"
	"strings"
	"testing"

	"github.com/sourcegraph/conc"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/sharder/sharder/integration/etcdtest"
	"github.com/sharder/sharder/stages"
	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
)

// relayTo serves everything by a relay to the etcd and gives a connection to it.
func relayTo(t *testing.T, handler grpc.StreamHandler, wait func()) *grpc.ClientConn {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	g := grpc.NewServer(grpc.UnknownServiceHandler(handler), grpc.WaitForHandlers(true))
	var wg conc.WaitGroup
	wg.Go(func() { _ = g.Serve(l) })
	conn := etcdtest.Conn(t, l.Addr().String())
	t.Cleanup(func() { g.Stop(); wg.Wait(); wait() })
	return conn
}

// snapshot reads a whole snapshot. etcd ends it with a hash of everything before.
func snapshot(t *testing.T, conn *grpc.ClientConn) []byte {
	t.Helper()
	s, err := pb.NewMaintenanceClient(conn).Snapshot(t.Context(), &pb.SnapshotRequest{})
	if err != nil {
		t.Fatal(err)
	}
	var blob []byte
	for {
		m, err := s.Recv()
		if errors.Is(err, io.EOF) {
			return blob
		}
		if err != nil {
			t.Fatal(err)
		}
		blob = append(blob, m.Blob...)
	}
}

func TestRelayPassesOnEverythingUnread(t *testing.T) {
	e := etcdtest.Start(t)
	if _, err := e.Client().Put(t.Context(), "k", string(make([]byte, 1<<20))); err != nil {
		t.Fatal(err)
	}
	r := stages.NewRelay(&stages.Shard{Name: "a", Conn: e.Conn()})
	conn := relayTo(t, r.Handle, r.Wait)

	members, err := pb.NewClusterClient(conn).MemberList(t.Context(), &pb.MemberListRequest{})
	if err != nil || len(members.Members) != 1 || members.Header.ClusterId == 0 {
		t.Fatalf("%v, %v", members, err)
	}
	blob := snapshot(t, conn)
	end := len(blob) - sha256.Size
	if sum := sha256.Sum256(blob[:end]); end < 1<<20 || !bytes.Equal(sum[:], blob[end:]) {
		t.Fatalf("a snapshot of %d bytes is not what the etcd sent", len(blob))
	}
	_, err = pb.NewAuthClient(conn).UserGet(t.Context(), &pb.AuthUserGetRequest{Name: "nobody"})
	_, want := pb.NewAuthClient(e.Conn()).UserGet(t.Context(), &pb.AuthUserGetRequest{Name: "nobody"})
	if err == nil || err.Error() != want.Error() {
		t.Fatalf("got %v, the etcd itself says %v", err, want)
	}
}

func TestRelayKeepsAStreamOpenBothWays(t *testing.T) {
	e := etcdtest.Start(t)
	r := stages.NewRelay(&stages.Shard{Name: "a", Conn: e.Conn()})
	s, err := pb.NewLeaseClient(relayTo(t, r.Handle, r.Wait)).LeaseKeepAlive(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	for id := range int64(10) {
		if err := s.Send(&pb.LeaseKeepAliveRequest{ID: id + 1}); err != nil {
			t.Fatal(err)
		}
		if m, err := s.Recv(); err != nil || m.ID != id+1 || m.TTL != 0 {
			t.Fatalf("%v, %v", m, err)
		}
	}
	if err := s.CloseSend(); err != nil {
		t.Fatal(err)
	}
	if _, err := s.Recv(); !errors.Is(err, io.EOF) {
		t.Fatalf("after the client's side closed: %v", err)
	}
}

func TestRelayNamesTheShardThatIsDown(t *testing.T) {
	e := etcdtest.Start(t)
	r := stages.NewRelay(&stages.Shard{Name: "far", Conn: e.Conn()})
	conn := relayTo(t, r.Handle, r.Wait)
	e.Stop()
	_, err := pb.NewClusterClient(conn).MemberList(t.Context(), &pb.MemberListRequest{})
	if status.Code(err) != codes.Unavailable || !strings.HasPrefix(status.Convert(err).Message(), "sharder: shard far: ") {
		t.Fatal(err)
	}
}
