package stages

// Cut is one moment of the order over all shards: the state that holds every write with
// a global revision up to Revision and no other. Package order gives them out; they are
// values, and what At points to is never changed.
type Cut struct {
	Revision int64   // the global revision, as clients see it
	At       []int64 // by Shard.Number: the shard's revision that has the same state
	// Pending is, by Shard.Number, the first global revision that is given out and not yet
	// known to be on the shard, 0 if there is none; nil if there is none anywhere. Where that is at or below
	// Revision, At is the state just before it.
	Pending   []int64
	Compacted int64 // the newest compaction, a global revision; 0 if there was none
}
