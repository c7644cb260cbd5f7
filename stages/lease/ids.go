package lease

import (
	"crypto/rand"
	"encoding/binary"
	"math"

	"github.com/sharder/sharder/stages"
)

// shardTTL is the TTL, in seconds, of every lease that sharder grants on shards
// other than home: some 280 years, which no etcd lets fire. It is a little below
// etcd's maximum of 9,000,000,000, at a number nobody types: a lease with exactly
// this granted TTL is sharder's own, which is how husks are told from adopted leases.
const shardTTL = 8_999_316_427

// never is a lease id that is never granted. A request that names a dead lease is
// sent with it, so that the shard itself says "lease not found", and says so only
// if it gets as far as the put.
const never = math.MinInt64

// lowest is the lowest shard id that stands for a positive client id. Below it are
// the aliases of negative ones. So the sign of a client's id can be told from the
// shard id, which compares of the kind "lease > 0" need.
const lowest = -1 << 62

// randomBits gives 62 random bits.
func randomBits() int64 {
	var b [8]byte
	rand.Read(b[:]) // never fails; it would end the program
	return int64(binary.LittleEndian.Uint64(b[:]) >> 2)
}

// drawID draws an id for a client that left the choice to us: positive, the same
// on the shards.
func drawID() int64 { return randomBits() + 1 }

// drawAlias draws the shard id for a client's own id.
func drawAlias(client int64) int64 {
	if client > 0 {
		return -1 - randomBits() // lowest … -1
	}
	for { // never+1 … lowest-1
		if id := lowest - 1 - randomBits()%(1<<62-1); !stages.OwnLease(id) {
			return id
		}
	}
}
