package stages

import (
	"math"
	"math/rand/v2"
)

// ownLeases is how many ids there are for leases of sharder's own: those above the lowest
// number. Clients' leases have none of them on any shard (package lease).
const ownLeases = 1 << 32

// DrawOwnLease draws an id for a lease that is sharder's own: no client is shown it.
func DrawOwnLease() int64 { return math.MinInt64 + 1 + rand.Int64N(ownLeases) }

// OwnLease tells whether a lease is sharder's own.
func OwnLease(id int64) bool { return id > math.MinInt64 && id <= math.MinInt64+ownLeases }
