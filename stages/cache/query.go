package cache

import (
	"bytes"
	"context"
	"hash/maphash"
	"slices"

	"google.golang.org/grpc/metadata"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"
)

// query is a read as the cache looks it up: who asks for which range, and how. Its slices
// are the request's; who keeps one copies them.
type query struct {
	who      who
	key, end []byte
	options  options
	hash     uint64 // of all but the options
}

// who is a client as the shard knows him: the metadata with his token. Nothing is shared
// between two of them, and all who send none are one.
type who struct{ token, authorization []string }

func (w who) equal(o who) bool {
	return slices.Equal(w.token, o.token) && slices.Equal(w.authorization, o.authorization)
}

// metadata is what a stream for the client goes out with: his token, and the demand that
// the member that serves it knows a leader. One that is cut off ends the stream then,
// instead of keeping it open and silent.
func (w who) metadata() metadata.MD {
	md := metadata.Pairs(rpctypes.MetadataRequireLeaderKey, rpctypes.MetadataHasLeader)
	md.Append(rpctypes.TokenFieldNameGRPC, w.token...)
	md.Append(rpctypes.TokenFieldNameSwagger, w.authorization...)
	return md
}

func (w who) size() (n int64) {
	for _, v := range slices.Concat(w.token, w.authorization) {
		n += int64(len(v))
	}
	return n
}

// options are what a Range says besides its range. Two reads of one range with equal
// options have the same answer at a revision.
type options struct {
	limit, minMod, maxMod, minCreate, maxCreate int64
	order, target                               int32
	keysOnly, countOnly                         bool
}

func optionsOf(r *pb.RangeRequest) options {
	return options{
		limit:  r.Limit,
		minMod: r.MinModRevision, maxMod: r.MaxModRevision, minCreate: r.MinCreateRevision, maxCreate: r.MaxCreateRevision,
		order: int32(r.SortOrder), target: int32(r.SortTarget),
		keysOnly: r.KeysOnly, countOnly: r.CountOnly,
	}
}

// whole tells whether the answer for a single key is the key-value as it is: a limit and a
// sort make no difference to one.
func (o options) whole() bool {
	return !o.keysOnly && !o.countOnly && o.minMod == 0 && o.maxMod == 0 && o.minCreate == 0 && o.maxCreate == 0
}

// cacheable tells whether a read may be answered from memory: a serializable one of what
// is now, of a range that can hold something, and nothing in it that this code does not
// know.
func cacheable(r *pb.RangeRequest) bool {
	return r.GetSerializable() && r.Revision <= 0 && len(r.Key) > 0 &&
		(len(r.RangeEnd) == 0 || fromKey(r.RangeEnd) || bytes.Compare(r.Key, r.RangeEnd) < 0) &&
		len(r.ProtoReflect().GetUnknown()) == 0
}

// fromKey tells whether a range end stands for the end of the keyspace.
func fromKey(end []byte) bool { return len(end) == 1 && end[0] == 0 }

var seed = maphash.MakeSeed()

// queryOf reads a request and its metadata. It allocates for clients with a token only.
func queryOf(ctx context.Context, r *pb.RangeRequest) query {
	q := query{
		who: who{
			token:         metadata.ValueFromIncomingContext(ctx, rpctypes.TokenFieldNameGRPC),
			authorization: metadata.ValueFromIncomingContext(ctx, rpctypes.TokenFieldNameSwagger),
		},
		key: r.Key, end: r.RangeEnd, options: optionsOf(r),
	}
	var h maphash.Hash
	h.SetSeed(seed)
	for _, v := range q.who.token {
		_, _ = h.WriteString(v)
	}
	for _, v := range q.who.authorization {
		_, _ = h.WriteString(v)
	}
	_ = h.WriteByte(0)
	_, _ = h.Write(q.key)
	_ = h.WriteByte(0)
	_, _ = h.Write(q.end)
	q.hash = h.Sum64()
	return q
}

// kept is the query with slices of its own.
func (q query) kept() query {
	q.key, q.end = bytes.Clone(q.key), bytes.Clone(q.end)
	return q
}

// same tells whether two queries are for one cell.
func (q *query) same(o *query) bool {
	return q.hash == o.hash && bytes.Equal(q.key, o.key) && bytes.Equal(q.end, o.end) && q.who.equal(o.who)
}
