package stages

import (
	"google.golang.org/grpc"
	"google.golang.org/grpc/metadata"

	"github.com/sharder/sharder/pipeline"
	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
)

// Shard is one etcd cluster as the chains see it. It is made once, at start, and
// shared by every request; nothing in it changes afterwards.
//
// The order cluster is a Shard, too, for those who keep records there: it has a
// connection and a name, but no keys of clients. Its Number is OrderCluster, no Table
// takes it in, and nothing is indexed by that number.
//
// Conn hides the members of the cluster: whoever implements it picks a member,
// fails over and authenticates (package backend does). Lane bounds the calls in
// flight to this shard, over all RPCs; a slow shard fills its own lane and nobody
// else's.
type Shard struct {
	Number int    // position in the configuration, from 0; breaks ties, never reused; or OrderCluster
	Name   string // the NAME of [shards.NAME]
	Conn   grpc.ClientConnInterface
	Lane   *pipeline.Link
}

// OrderCluster is the Number of the cluster that holds the order.
const OrderCluster = -1

// String is what errors call it.
func (s *Shard) String() string {
	if s.Number == OrderCluster {
		return "order cluster"
	}
	return "shard " + s.Name
}

// Op is a decoded request: valid in etcd's eyes and free of keys that clients
// may not name. It is owned by its request and never changed once it left decode;
// a stage that needs another one makes a copy.
type Op struct {
	// Request has exactly one of RequestRange, RequestPut, RequestDeleteRange
	// and RequestTxn. It is etcd's own union of what a Txn can hold, so the same
	// middleware serves a Put and a Put inside a Txn.
	Request *pb.RequestOp
	// Whole asks route not to push limits and sorting down to the shards: set
	// when a merge found ties that only the whole range can decide.
	Whole bool
	// Cut is the moment at which everything the Op reads is read, the same on every
	// shard. nil where each shard keeps its own revisions and answers as it stands.
	Cut *Cut
}

// Call is what one shard is asked for the sake of one Op.
type Call struct {
	Op      *Op
	Shard   *Shard
	Request *pb.RequestOp // the Op's request, narrowed to what this shard holds
	// Guard must hold on the shard, besides the request's own compares, or nothing
	// happens there: see package order. Empty for most calls.
	Guard []*pb.Compare
}

// Reply is the answer to one Call, or, after gather, to the whole Op.
//
// Header and Trailer are the gRPC metadata the shard sent along. After gather
// they are set only if exactly one shard was asked: its answer is passed on whole.
type Reply struct {
	Op       *Op
	Shard    *Shard // nil when several shards answered
	Response *pb.ResponseOp
	Frame    *Frame // instead of Response, an answer that was left as it came (CallFrame)
	Header   metadata.MD
	Trailer  metadata.MD
}

// Revision is the revision in the header of the answer.
func (r Reply) Revision() int64 {
	if r.Frame != nil {
		return r.Frame.Revision()
	}
	return HeaderRevision(r.Response)
}
