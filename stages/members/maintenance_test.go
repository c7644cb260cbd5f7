package members

import (
	"bytes"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"go.etcd.io/bbolt"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"

	"github.com/sharder/sharder/integration/etcdproc"
	"github.com/sharder/sharder/integration/etcdtest"
	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
)

func TestEachMemberAnswersForItself(t *testing.T) {
	t.Parallel()
	e := etcdproc.Start(t, 3)
	r := newRig(t, e.Endpoints())
	members, _ := peopled(t, r.backends[0])
	calmly(t, e, func() (wrong []string) {
		lead := led(t, e, r.backends[0]).ID
		for range 30 { // etcd's grpc-proxy asks each in turn
			if st, err := r.Status(to(t, "", ""), &pb.StatusRequest{}); err != nil || st.Header.MemberId != lead {
				return append(wrong, fmt.Sprintf("not the leader: %v, %v", st, err))
			}
		}
		if st, err := r.Status(to(t, "", LeaderName), &pb.StatusRequest{}); err != nil || st.Header.MemberId != lead {
			wrong = append(wrong, fmt.Sprintf("the leader by name: %v, %v", st, err))
		}
		if h, err := r.Hash(to(t, "", ""), &pb.HashRequest{}); err != nil || h.Header.MemberId != lead {
			wrong = append(wrong, fmt.Sprintf("the hash of the leader: %v, %v", h, err))
		}
		return wrong
	})
	for i, m := range members {
		for _, name := range []string{m.Endpoint, "http://" + m.Endpoint, fmt.Sprintf("%x", m.ID), fmt.Sprintf("0x%X", m.ID), fmt.Sprintf("m%d", i)} {
			for _, shard := range []string{"", "a"} {
				st, err := r.Status(to(t, shard, name), &pb.StatusRequest{})
				if err != nil || st.Header.MemberId != m.ID {
					t.Errorf("member %s, by %q of %q: %v, %v", m.Endpoint, name, shard, st, err)
				}
			}
		}
		h, err := r.HashKV(to(t, "", m.Endpoint), &pb.HashKVRequest{})
		if err != nil || h.Header.MemberId != m.ID {
			t.Errorf("the hash of %s: %v, %v", m.Endpoint, h, err)
		}
	}
	_, err := r.Downgrade(to(t, "", ""), &pb.DowngradeRequest{Action: pb.DowngradeRequest_VALIDATE, Version: "1.2"})
	if status.Convert(err).Message() != "etcdserver: invalid downgrade target version" {
		t.Errorf("a downgrade: %v", err)
	}
	wrong := map[[2]string]string{
		{"", "m7"}: fmt.Sprintf(`sharder: shard a has no member "m7"; there is m0 (%x, %s)`, members[0].ID, members[0].Endpoint), {"", "127.0.0.1:1"}: "m1 (", {"", "abcdef"}: "m2 (",
		{"b", ""}: `sharder: there is no shard "b"; there is a`,
	}
	for named, want := range wrong {
		_, err := r.Status(to(t, named[0], named[1]), &pb.StatusRequest{})
		if named[0] == "" && status.Code(err) == codes.NotFound {
			for i := range members { // all are named; in the order of the cluster's own list
				if !strings.Contains(err.Error(), fmt.Sprintf("m%d (%x, %s)", i, members[i].ID, members[i].Endpoint)) {
					t.Errorf("m%d is not told in %v", i, err)
				}
			}
			continue
		}
		if status.Code(err) != codes.NotFound || !strings.Contains(err.Error(), want) {
			t.Errorf("%q: %v", named, err)
		}
	}
}

func TestAMemberThatIsGoneIsNotAnsweredForByAnother(t *testing.T) {
	t.Parallel()
	e := etcdproc.Start(t, 3)
	r := newRig(t, e.Endpoints())
	members, _ := peopled(t, r.backends[0])
	follower := e.Follower()
	e.Kill(follower)
	gone := members[follower]
	for _, name := range []string{gone.Endpoint, fmt.Sprintf("%x", gone.ID), fmt.Sprintf("m%d", follower)} {
		_, err := r.Status(to(t, "", name), &pb.StatusRequest{})
		if status.Code(err) != codes.Unavailable || !strings.Contains(err.Error(), gone.Endpoint) {
			t.Errorf("%q: %v", name, err)
		}
	}
	// Without a quorum, somebody still says how it is: always the same one.
	e.Kill(e.Leader())
	if _, err := r.Status(to(t, "", ""), &pb.StatusRequest{}); err != nil { // before its end is noticed
		t.Errorf("the leader has just died, and nobody says how the others are: %v", err)
	}
	eventually(t, "the last one has no leader", func() bool { return r.backends[0].NoLeader() })
	st, err := r.Status(to(t, "", ""), &pb.StatusRequest{})
	if err != nil || st.Leader != 0 || len(st.Errors) == 0 {
		t.Errorf("%v, %v", st, err)
	}
	_, err = r.Status(metadata.AppendToOutgoingContext(to(t, "", ""), "hasleader", "true"), &pb.StatusRequest{})
	if status.Convert(err).Message() != "etcdserver: no leader" {
		t.Errorf("one who requires a leader: %v", err)
	}
	if blob := snapshot(t, r, "", ""); len(blob) == 0 {
		t.Error("no snapshot without a quorum")
	}
	_, err = r.MoveLeader(to(t, "", ""), &pb.MoveLeaderRequest{TargetID: st.Header.MemberId})
	if status.Convert(err).Message() != "etcdserver: no leader" {
		t.Errorf("%v", err)
	}
}

func TestTheLeaderIsMovedEveryTime(t *testing.T) {
	t.Parallel()
	e := etcdproc.Start(t, 3)
	r := newRig(t, e.Endpoints())
	members, _ := peopled(t, r.backends[0])
	c, moved := e.Client(), 0
	const tooLong = "etcdserver: request timed out" // etcd gives the next one a second to win
	for i := range 12 {
		target := members[i%3].ID
		st, err := c.Status(t.Context(), e.Endpoint(0))
		if err != nil {
			t.Fatal(err)
		}
		if st.Leader == target {
			continue
		}
		_, err = r.MoveLeader(to(t, "", ""), &pb.MoveLeaderRequest{TargetID: target})
		switch {
		case err == nil:
			moved++
		case !etcdproc.ElectionError(err) && !strings.HasPrefix(status.Convert(err).Message(), tooLong):
			t.Errorf("move %d: %v", i, err)
		}
	}
	if moved == 0 {
		t.Error("it was never moved")
	}
	calmly(t, e, func() (wrong []string) {
		leader := e.Leader()
		_, err := r.MoveLeader(to(t, "", members[(leader+1)%3].Endpoint), &pb.MoveLeaderRequest{TargetID: members[leader].ID})
		if status.Convert(err).Message() != "etcdserver: not leader" {
			wrong = append(wrong, fmt.Sprintf("one that was named, and does not lead: %v", err))
		}
		return wrong
	})
}

// snapshot takes one, and gives the database without etcd's hash behind it, which must be
// right.
func snapshot(t *testing.T, r *rig, shard, member string) []byte {
	t.Helper()
	s, err := r.Snapshot(to(t, shard, member), &pb.SnapshotRequest{})
	if err != nil {
		t.Fatal(err)
	}
	var blob []byte
	for {
		m, err := s.Recv()
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			t.Fatal(err)
		}
		blob = append(blob, m.Blob...)
	}
	end := len(blob) - sha256.Size
	if end <= 0 {
		t.Fatalf("a snapshot of %d bytes", len(blob))
	}
	if sum := sha256.Sum256(blob[:end]); !bytes.Equal(sum[:], blob[end:]) {
		t.Fatal("the snapshot is not what its hash says")
	}
	return blob[:end]
}

// revisions counts the revisions in a database.
func revisions(t *testing.T, blob []byte) (n int) {
	t.Helper()
	path := filepath.Join(t.TempDir(), "db")
	if err := os.WriteFile(path, blob, 0o600); err != nil {
		t.Fatal(err)
	}
	db, err := bbolt.Open(path, 0o600, &bbolt.Options{ReadOnly: true})
	if err != nil {
		t.Fatal(err)
	}
	defer db.Close()
	err = db.View(func(tx *bbolt.Tx) error {
		n = tx.Bucket([]byte("key")).Stats().KeyN
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return n
}

func TestASnapshotIsOfAFollowerThatHasEverything(t *testing.T) {
	t.Parallel()
	e := etcdproc.Start(t, 3)
	r := newRig(t, e.Endpoints())
	peopled(t, r.backends[0])
	fill(t, e, 300)
	for range 3 {
		fill(t, e, 1) // a moment before
		if n := revisions(t, snapshot(t, r, "", "")); n < 300 {
			t.Errorf("%d revisions of 300 are in the snapshot", n)
		}
	}
	abreast(t, e)
	for _, s := range r.backends[0].Members() {
		if n := revisions(t, snapshot(t, r, "", s.Endpoint)); n < 300 {
			t.Errorf("%d revisions of 300 are in the one of %s", n, s.Endpoint)
		}
	}
	// Of the members none but the leader keeps up: a frozen one is no source, nor one that is gone.
	lead := e.Leader()
	var others []int
	for i := range 3 {
		if i != lead {
			others = append(others, i)
		}
	}
	e.Kill(others[0])
	fill(t, e, 10)
	if n := revisions(t, snapshot(t, r, "", "")); n < 303 {
		t.Errorf("%d revisions are in the one of the last follower", n)
	}
}

func TestTheSourceOfASnapshotIsAFollower(t *testing.T) {
	t.Parallel()
	e := etcdproc.Start(t, 3)
	r := newRig(t, e.Endpoints())
	abreast(t, e)
	calmly(t, e, func() (wrong []string) {
		lead := led(t, e, r.backends[0]).Endpoint
		w, err := Source(t.Context(), r.cluster(0))
		if err != nil || w.Member == lead || w.Member == "" {
			wrong = append(wrong, fmt.Sprintf("%+v, %v; the leader is %s", w, err, lead))
		}
		return wrong
	})
	alone := etcdtest.Start(t)
	one := newRig(t, []string{alone.Endpoint})
	peopled(t, one.backends[0])
	if w, err := Source(t.Context(), one.cluster(0)); err != nil || w.Member != alone.Endpoint {
		t.Errorf("%+v, %v", w, err)
	}
}
