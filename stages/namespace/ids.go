package namespace

import (
	"math/rand/v2"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
)

// How the 63 bits of a positive lease id are shared out, from the top.
const (
	anyBase    = 1 << 62 // set in the ids of all namespaces; what package lease draws without one has it unset
	numberBits = 25      // the namespace's number
	serialBits = 37      // which of its leases
	serials    = 1 << serialBits
	chosen     = 1 << 32 // serials below are ids that clients chose
)

// leaseIDs are the ids of one namespace's leases: those above base, up to base+serials. base
// itself is never granted.
//
// Clients know a lease by its id below, unless they chose the id, which is the serial then.
// Both numbers of a lease are positive, and the order of all leases is the same in both.
type leaseIDs struct{ base int64 }

// draw draws an id for a lease whose id the client leaves to the server.
func (l leaseIDs) draw() int64 { return l.base + chosen + rand.Int64N(serials-chosen) }

// owns tells whether a lease of below is the namespace's.
func (l leaseIDs) owns(id int64) bool { return id > l.base && id-l.base < serials }

// below is the id below of what a client names; one that is not the namespace's becomes one
// that is never granted. 0 stays: it is no lease.
func (l leaseIDs) below(id int64) int64 {
	switch {
	case id == 0:
		return 0
	case id > 0 && id < chosen:
		return l.base + id
	case l.owns(id) && id-l.base >= chosen:
		return id
	}
	return l.base
}

// client is the id by which clients know a lease of below. All that are not the namespace's
// look the same: like one that is never granted.
func (l leaseIDs) client(id int64) int64 {
	switch {
	case id == 0:
		return 0
	case !l.owns(id):
		return l.base
	case id-l.base < chosen:
		return id - l.base
	}
	return id
}

// granted is the id to grant when a client asks for one.
func (l leaseIDs) granted(id int64) (int64, error) {
	if b := l.below(id); b != l.base {
		return b, nil
	}
	return 0, status.Errorf(codes.InvalidArgument,
		"sharder: lease id %d: in a namespace a client may choose one between 1 and %d, or leave it to the server with 0", id, int64(chosen-1))
}

// compare is a compare's operand as it is below. What is asked for by order is asked with
// the number that parts the ids of below as the client's parts the client's.
func (l leaseIDs) compare(how pb.Compare_CompareResult, id int64) int64 {
	if how != pb.Compare_GREATER && how != pb.Compare_LESS {
		return l.below(id)
	}
	first := l.base + chosen // behind the chosen ones
	switch {
	case id <= 0:
		return id
	case id < chosen:
		return l.base + id
	case id >= first:
		return id
	case how == pb.Compare_LESS:
		return first
	}
	return first - 1
}
