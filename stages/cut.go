package stages

// Cut is one moment of the order over all shards: the state that holds every write with
// a global revision up to Revision and no other. Package order gives them out; they are
// values, and what At points to is never changed.
type Cut struct {
	Revision  int64   // the global revision, as clients see it
	At        []int64 // by Shard.Number: the shard's revision that has the same state
	Compacted int64   // the newest compaction, a global revision; 0 if there was none
}
