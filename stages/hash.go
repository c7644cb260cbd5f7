package stages

import "github.com/cespare/xxhash/v2"

// hashVersion names the way hash lines spread their keys. It is part of the
// table's fingerprint: a different spread would leave existing keys where no
// read looks for them, so this name changes if ever anything below does.
const hashVersion = "xxhash64/jump/1"

// spread gives the position, in a list of n shards, of the one that holds key.
// It depends on the key and on n alone, and may never change for data that exists.
func spread(key []byte, n int) int {
	return jump(xxhash.Sum64(key), n)
}

// jump is jump consistent hashing (Lamping and Veach, "A Fast, Minimal Memory,
// Consistent Hash Algorithm", 2014): it maps h to a bucket in [0, n) so that
// growing n by one moves only the share of keys that the new bucket takes.
// n must be at least 1.
func jump(h uint64, n int) int {
	bucket, next := int64(-1), int64(0)
	for next < int64(n) {
		bucket = next
		h = h*2862933555777941757 + 1
		next = int64(float64(bucket+1) * (float64(int64(1)<<31) / float64((h>>33)+1)))
	}
	return int(bucket)
}
