package sim

import (
	"context"
	"path"
	"sync"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"
)

// shard is one etcd cluster: a store, and what may be wrong with the members around it.
type shard struct {
	number int
	dice   *dice
	lag    time.Duration // how far a member may be behind

	mu        sync.Mutex
	store     *store
	moves     []move
	awayUntil time.Time // no member answers
	headless  time.Time // until when there is no quorum
}

// move is when the shard came to a revision.
type move struct {
	at  time.Time
	rev int64
}

func (s *shard) away() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return time.Now().Before(s.awayUntil)
}

// leave takes the whole shard away for a while, or only its quorum.
func (s *shard) leave(d time.Duration, quorum bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if quorum {
		s.headless = time.Now().Add(d)
	} else {
		s.awayUntil = time.Now().Add(d)
	}
}

// id is the id of the cluster.
func (s *shard) id() uint64 { return uint64(s.number) + 1 }

func (s *shard) head() int64 {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.store.head()
}

// holds is the value of a key, empty if there is none.
func (s *shard) holds(key string) string {
	s.mu.Lock()
	defer s.mu.Unlock()
	resp, err := s.store.apply(&pb.RangeRequest{Key: []byte(key)}, 0)
	if err != nil {
		panic(err)
	}
	for _, kv := range resp.(*pb.RangeResponse).Kvs {
		return string(kv.Value)
	}
	return ""
}

// serve answers one request, as the member that it happened to come to.
func (s *shard) serve(req proto.Message) (proto.Message, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if time.Now().Before(s.headless) && !serializable(req) {
		return nil, rpctypes.ErrGRPCNoLeader
	}
	resp, err := s.store.apply(req, s.member())
	if err == nil {
		headerOf(resp).ClusterId = s.id()
	}
	if head := s.store.head(); len(s.moves) == 0 || s.moves[len(s.moves)-1].rev < head {
		s.moves = append(s.moves, move{time.Now(), head})
	}
	return resp, err
}

// member is how far some member has come; mu is held.
func (s *shard) member() int64 {
	if s.lag == 0 || s.dice.chance(.4) {
		return s.store.head()
	}
	then := time.Now().Add(-s.dice.between(0, s.lag))
	rev := int64(1)
	for _, m := range s.moves {
		if m.at.After(then) {
			break
		}
		rev = m.rev
	}
	return rev
}

// conn is a sharder's connection to a shard. It is a grpc.ClientConnInterface.
type conn struct {
	shard *shard
	*line
	edit func(req, resp proto.Message) // a mutant's
	bend func(*pb.TxnRequest)          // likewise, before it is sent
}

// Invoke carries one call of the KV service.
func (c *conn) Invoke(ctx context.Context, _ string, args, reply any, _ ...grpc.CallOption) error {
	req := proto.Clone(args.(proto.Message))
	if t, ok := req.(*pb.TxnRequest); ok && c.bend != nil {
		c.bend(t)
	}
	resp, err := call(ctx, c.line, func() (proto.Message, error) { return c.shard.serve(req) })
	if err == nil && c.edit != nil {
		c.edit(req, resp)
	}
	if err == nil {
		proto.Merge(reply.(proto.Message), resp)
	}
	return err
}

// NewStream is for streams, which there are none of here.
func (c *conn) NewStream(_ context.Context, _ *grpc.StreamDesc, method string, _ ...grpc.CallOption) (grpc.ClientStream, error) {
	return nil, status.Errorf(codes.Unimplemented, "no %s in a simulation", path.Base(method))
}
