package watch

import (
	"sync"
	"time"

	"google.golang.org/grpc/status"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"
)

// standing is what this process knows of where a shard stands: how far its revision
// has come and whether it can be reached. Everybody who hears from the shard tells it,
// every start of a watch asks it.
//
// Its mutex is a leaf: it is taken with a trunk's mutex held, and nothing is locked
// under it.
type standing struct {
	mu      sync.Mutex
	header  *pb.ResponseHeader    // the newest one seen, for answers that need no shard
	rev     int64                 // the newest revision seen
	revSeen time.Time             // when rev was last confirmed
	downFor time.Time             // since when no stream could be had; zero if one can
	mute    bool                  // a probe was not answered in time and nothing came since
	wary    map[*session]struct{} // sessions that want to be told when the shard has no leader
}

// observe notes a revision the shard is known to have reached.
func (s *standing) observe(rev int64) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.raise(rev)
}

// raise is observe with the mutex held.
func (s *standing) raise(rev int64) {
	if rev > 0 && rev >= s.rev {
		s.rev, s.revSeen = rev, time.Now()
	}
}

// heard notes what a header says. Its revision is the shard's, whatever has been
// delivered.
func (s *standing) heard(header *pb.ResponseHeader) {
	if header == nil || header.Revision == 0 {
		return
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.downFor, s.mute, s.header = time.Time{}, false, header
	s.raise(header.Revision)
}

// known is the newest revision seen, 0 if none was.
func (s *standing) known() int64 {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.rev
}

// credible is how long a revision counts that a later answer falls short of. That may
// have been given by a member that lags behind one that answered a write; but nobody
// lags for ever, and a shard may have been restored from a backup.
const credible = 10 * time.Second

// now is where the shard stands: what it just said, or what is known to be newer.
func (s *standing) now(said int64) int64 {
	s.mu.Lock()
	defer s.mu.Unlock()
	if said < s.rev && time.Since(s.revSeen) > credible {
		s.rev, s.revSeen = said, time.Now()
	}
	return max(said, s.rev)
}

// lastHeader is a header for an answer given without asking the shard.
func (s *standing) lastHeader(rev int64) *pb.ResponseHeader {
	s.mu.Lock()
	defer s.mu.Unlock()
	return withRevision(s.header, rev)
}

// withRevision copies a header with another revision.
func withRevision(h *pb.ResponseHeader, rev int64) *pb.ResponseHeader {
	return &pb.ResponseHeader{ClusterId: h.GetClusterId(), MemberId: h.GetMemberId(), RaftTerm: h.GetRaftTerm(), Revision: rev}
}

// leaderlessAfter is how long a shard may be out of reach until clients that asked to
// be told of a missing leader are told.
const leaderlessAfter = 5 * time.Second

// lost takes note of the end of a stream.
func (s *standing) lost(err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.downFor.IsZero() {
		s.downFor = time.Now()
	}
	if !isNoLeader(err) && time.Since(s.downFor) < leaderlessAfter {
		return
	}
	for c := range s.wary {
		c.fail(rpctypes.ErrGRPCNoLeader)
	}
	clear(s.wary)
}

func isNoLeader(err error) bool {
	return err != nil && status.Convert(err).Message() == status.Convert(rpctypes.ErrGRPCNoLeader).Message()
}

// unanswered notes that a probe was given up.
func (s *standing) unanswered() {
	s.mu.Lock()
	s.mute = true
	s.mu.Unlock()
}

// down tells whether the shard could not be reached when it was last tried.
func (s *standing) down() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.mute || !s.downFor.IsZero()
}

// warn has the session told when the shard loses its leader.
func (s *standing) warn(c *session) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.wary == nil {
		s.wary = map[*session]struct{}{}
	}
	s.wary[c] = struct{}{}
}

func (s *standing) forget(c *session) {
	s.mu.Lock()
	delete(s.wary, c)
	s.mu.Unlock()
}
