package stages

// The keys that every shard of a deployment with one order carries from the beginning.
// They are written in one transaction, before the shard is first used, so a compare on
// any of them has something to compare with.
const (
	// StampKey holds what the shard is used for; package backend reads and writes it.
	// Shards without one order have it, too.
	StampKey = "\x00sharder/stamp"
	// RoutesKey holds the fingerprint of the routes ([Table.Fingerprint]). A write that
	// is made under other routes is refused by the shard itself.
	RoutesKey = "\x00sharder/routes"
	// ClosedKey holds the id of the newest transaction over several shards that is done
	// here, in digits of fixed width, so that they compare as text.
	ClosedKey = "\x00sharder/closed"
)

// MembersPrefix is where sharders register on the order cluster, or on the first shard
// without one, if they are not given another place.
const MembersPrefix = "\x00sharder/members"

// FenceKey is on a shard only while a transaction over several shards keeps all writes
// away from it but its own. What it holds begins with the id of that transaction's batch.
const FenceKey = "\x00sharder/fence"

// NoneClosed is what [ClosedKey] holds before the first one: below every id.
const NoneClosed = "00000000000000000000"

// OrderName is what the order cluster is called where shards have their names. No shard
// can be called so.
const OrderName = "[order]"
