package cache

import (
	"slices"
	"sync/atomic"
	"unsafe"

	"google.golang.org/protobuf/encoding/protowire"
	"google.golang.org/protobuf/proto"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	"go.etcd.io/etcd/api/v3/mvccpb"
)

// answer is what the shard said to one read, in the bytes in which it goes to clients. It
// never changes and is shared by all who are answered with it.
type answer struct {
	options options
	header  *pb.ResponseHeader
	body    []byte  // the message without its header; behind one it is the whole
	read    int64   // when the read began, on the cache's clock
	leases  []int64 // of the key-values in it, sorted
	opaque  bool    // there is more in the range than what it shows, or it shows no leases

	// head is the header as it is written, with a newer revision up to which the answer is
	// known to be true: made once for each, since all hits between two signs of life have the same.
	head atomic.Pointer[head]
}

type head struct {
	rev  int64
	wire []byte
}

// The fields of a RangeResponse and of a KeyValue that are looked at.
const (
	headerField protowire.Number = 1
	kvsField    protowire.Number = 2
	moreField   protowire.Number = 3
	countField  protowire.Number = 4
	leaseField  protowire.Number = 6
)

// newAnswer reads the bytes of a RangeResponse, which are the answer's from now on; nil if
// they are none that can be kept. The header is first with etcd, and there once.
func newAnswer(o options, wire []byte, read int64) *answer {
	a := &answer{options: o, body: wire, read: read}
	shown, count, more := 0, uint64(0), uint64(0)
	sound := fields(wire, func(num protowire.Number, typ protowire.Type, value []byte, at, end int) bool {
		switch {
		case num == headerField:
			a.body = wire[end:]
			return at == 0 && a.readHeader(value)
		case num == kvsField && typ == protowire.BytesType:
			shown++
			a.noteLease(value)
		case num == moreField && typ == protowire.VarintType:
			more, _ = protowire.ConsumeVarint(value)
		case num == countField && typ == protowire.VarintType:
			count, _ = protowire.ConsumeVarint(value)
		}
		return true
	})
	if !sound || a.header.GetRevision() <= 0 {
		return nil
	}
	if o.keysOnly {
		shown = 0
	}
	a.opaque = more != 0 || count != uint64(shown)
	slices.Sort(a.leases)
	a.leases = slices.Clip(slices.Compact(a.leases))
	return a
}

// fields calls visit for each field of a message, with its value as it is written and where
// it begins and ends, until that gives false. It gives whether all were visited.
func fields(msg []byte, visit func(num protowire.Number, typ protowire.Type, value []byte, at, end int) bool) bool {
	for at := 0; at < len(msg); {
		num, typ, n := protowire.ConsumeTag(msg[at:])
		if n < 0 {
			return false
		}
		size := protowire.ConsumeFieldValue(num, typ, msg[at+n:])
		if size < 0 {
			return false
		}
		end := at + n + size
		if !visit(num, typ, msg[at+n:end], at, end) {
			return false
		}
		at = end
	}
	return true
}

func (a *answer) readHeader(field []byte) bool {
	msg, n := protowire.ConsumeBytes(field)
	a.header = &pb.ResponseHeader{}
	return n > 0 && proto.Unmarshal(msg, a.header) == nil
}

// noteLease looks for the lease of a key-value.
func (a *answer) noteLease(field []byte) {
	kv, _ := protowire.ConsumeBytes(field)
	fields(kv, func(num protowire.Number, typ protowire.Type, value []byte, _, _ int) bool {
		if num == leaseField && typ == protowire.VarintType {
			if id, _ := protowire.ConsumeVarint(value); id != 0 {
				a.leases = append(a.leases, int64(id))
			}
		}
		return true
	})
}

// rev is the revision in the header of what the shard said, at which it was true.
func (a *answer) rev() int64 { return a.header.Revision }

// size is what an answer takes up in memory.
func (a *answer) size() int64 {
	return answerBytes + int64(cap(a.body)+8*cap(a.leases))
}

// answerBytes is what it takes up besides: itself, and its header, which is there in two forms.
const answerBytes = int64(unsafe.Sizeof(answer{}) + unsafe.Sizeof(pb.ResponseHeader{}) + unsafe.Sizeof(head{}) + 2*64)

// headAt is the header as it is written, with the revision up to which the answer is known
// to be true.
func (a *answer) headAt(rev int64) []byte {
	if h := a.head.Load(); h != nil && h.rev == rev {
		return h.wire
	}
	header := a.header
	if header.Revision != rev {
		header = proto.CloneOf(header)
		header.Revision = rev
	}
	wire, err := proto.Marshal(&pb.RangeResponse{Header: header})
	if err != nil {
		return nil // a header is always one
	}
	a.head.Store(&head{rev, wire})
	return wire
}

// after is the answer once the event has happened to its key, the only one of its range; nil
// if there is none.
func (a *answer) after(e *mvccpb.Event) *answer {
	header := proto.CloneOf(a.header)
	header.Revision = e.Kv.ModRevision
	resp := &pb.RangeResponse{Header: header}
	if e.Type == mvccpb.Event_PUT {
		resp.Kvs, resp.Count = []*mvccpb.KeyValue{e.Kv}, 1
	}
	wire, err := proto.Marshal(resp)
	if err != nil {
		return nil
	}
	return newAnswer(a.options, wire, a.read)
}

// mayHold tells whether a key with the lease may be in the range that was read.
func (a *answer) mayHold(lease int64) bool {
	if a.opaque {
		return true
	}
	_, found := slices.BinarySearch(a.leases, lease)
	return found
}
