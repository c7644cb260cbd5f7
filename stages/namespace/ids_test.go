package namespace

import (
	"cmp"
	"math"
	"math/rand/v2"
	"testing"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
)

// someIDs are ids of clients that a namespace has leases of, in order, with borders.
func someIDs(n *Namespace) []int64 {
	ids := []int64{0, 1, 2, 4711, 77777, chosen - 1, n.leases.base + chosen}
	for range 4 {
		ids = append(ids, n.DrawLease())
	}
	return append(ids, n.leases.base+serials-1)
}

func TestALeaseHasOneIDHereAndOneThere(t *testing.T) {
	n, other := New([]byte("one/")), New([]byte("two/"))
	for _, id := range someIDs(n) {
		below := n.leases.below(id)
		if got := n.leases.client(below); got != id {
			t.Errorf("%x is %x below and comes back as %x", id, below, got)
		}
		if id == 0 {
			continue
		}
		if granted, err := n.leases.granted(id); err != nil || granted != below {
			t.Errorf("%x is granted as %x, %v; want %x", id, granted, err, below)
		}
		if below <= 0 || !n.leases.owns(below) || other.leases.owns(below) {
			t.Errorf("%x is %x below: own %v, another's %v", id, below, n.leases.owns(below), other.leases.owns(below))
		}
		if got := other.leases.client(below); got != other.leases.base {
			t.Errorf("another namespace sees %x as %x", below, got)
		}
		if got := other.leases.below(below); got != other.leases.base {
			t.Errorf("another namespace's client that names %x reaches %x", below, got)
		}
	}
}

// What is not a client's to name becomes the one id that is never granted: ids of others, and
// other spellings of one's own.
func TestOtherIDsAreNobodys(t *testing.T) {
	n := New([]byte("one/"))
	base := n.leases.base
	for _, id := range []int64{-1, math.MinInt64, math.MaxInt64, chosen, 1 << 61, base, base + 1, base + chosen - 1, base + serials, base - 1, New([]byte("two/")).DrawLease()} {
		if got := n.leases.below(id); got != base {
			t.Errorf("%x is %x below", id, got)
		}
		if _, err := n.leases.granted(id); status.Code(err) != codes.InvalidArgument {
			t.Errorf("%x: %v", id, err)
		}
	}
	for range 100000 {
		if id := n.DrawLease(); !n.leases.owns(id) || n.leases.below(id) != id {
			t.Fatalf("%x was drawn", id)
		}
	}
	if n.leases.owns(base) || n.leases.owns(rand.Int64N(anyBase)) || n.leases.owns(-base) {
		t.Error("an id that is never granted is the namespace's")
	}
}

// holds tells what etcd says of a compare of a number.
func holds(r pb.Compare_CompareResult, have, want int64) bool {
	c := cmp.Compare(have, want)
	return map[pb.Compare_CompareResult]bool{
		pb.Compare_EQUAL: c == 0, pb.Compare_NOT_EQUAL: c != 0, pb.Compare_GREATER: c > 0, pb.Compare_LESS: c < 0,
	}[r]
}

func TestComparesOfLeasesMeanTheSameBelow(t *testing.T) {
	n := New([]byte("one/"))
	operands := append(someIDs(n), -1, -7, math.MinInt64, math.MaxInt64, chosen, chosen+1, 1<<61,
		n.leases.base-1, n.leases.base, n.leases.base+1, n.leases.base+chosen-1, n.leases.base+chosen+1, n.leases.base+serials, n.leases.base+serials+1)
	for _, have := range someIDs(n) {
		for _, operand := range operands {
			for r := range pb.Compare_CompareResult_name {
				r := pb.Compare_CompareResult(r)
				if up, down := holds(r, have, operand), holds(r, n.leases.below(have), n.leases.compare(r, operand)); up != down {
					t.Errorf("a key with lease %x, compared as %v with %x: %v for the client, %v below", have, r, operand, up, down)
				}
			}
		}
	}
}

func TestTheIDsOfANamespaceAreTheSameEverywhereAndForEver(t *testing.T) {
	first, last := New([]byte("tenant1/")).LeaseIDs()
	if first != "6ee9f92000000001" || last != "6ee9f93fffffffff" {
		t.Errorf("from %s to %s: leases that were granted before are nobody's now", first, last)
	}
}
