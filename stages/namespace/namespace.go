package namespace

import (
	"bytes"
	"crypto/sha256"
	"encoding/binary"
	"fmt"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
)

// Namespace is the part of the keyspace that begins with a prefix. It never changes, and any
// goroutine may use it.
type Namespace struct {
	prefix []byte
	end    []byte // of the keys with the prefix, as a range_end
	leases leaseIDs
}

// New makes the namespace of a prefix, which isn't empty.
func New(prefix []byte) *Namespace {
	sum := sha256.Sum256(prefix)
	number := int64(binary.BigEndian.Uint32(sum[:]) >> (32 - numberBits))
	return &Namespace{
		prefix: bytes.Clone(prefix), end: endOf(prefix),
		leases: leaseIDs{base: anyBase | max(1, number)<<serialBits},
	}
}

// Key is a client's key as it is below; the empty one stays empty.
func (n *Namespace) Key(key []byte) []byte {
	if len(key) == 0 {
		return nil
	}
	return n.prefixed(key)
}

// End is the end of a client's range as it is below: none for a single key.
func (n *Namespace) End(end []byte) []byte {
	switch {
	case len(end) == 0:
		return nil
	case len(end) == 1 && end[0] == 0:
		return n.end
	}
	return n.prefixed(end)
}

func (n *Namespace) prefixed(key []byte) []byte {
	out := make([]byte, len(n.prefix)+len(key))
	copy(out[copy(out, n.prefix):], key)
	return out
}

// within is a key of below as the client knows it; ok is false if it is none of the namespace's.
func (n *Namespace) within(key []byte) (own []byte, ok bool) {
	if len(key) <= len(n.prefix) || !bytes.HasPrefix(key, n.prefix) {
		return nil, false
	}
	return key[len(n.prefix):], true
}

// endOf is the end of the range of keys with a prefix: etcd's "\x00", the end of all keys,
// if there is no key behind them.
func endOf(prefix []byte) []byte {
	end := bytes.Clone(prefix)
	for i := len(end) - 1; i >= 0; i-- {
		if end[i]++; end[i] != 0 {
			return end[:i+1]
		}
	}
	return []byte{0}
}

// LeaseIDs tells the first and the last id of the namespace's leases, in the form in which
// etcdctl shows them.
func (n *Namespace) LeaseIDs() (first, last string) {
	return fmt.Sprintf("%x", n.leases.base+1), fmt.Sprintf("%x", n.leases.base+serials-1)
}

// errOutside says that below answered with a key that was not asked for: rather no answer
// than one with a key of somebody else.
var errOutside = status.Error(codes.Internal, "sharder: a shard answered with a key outside the namespace")
