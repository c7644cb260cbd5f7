package stages

import (
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"hash"
)

// fingerprint hashes everything that decides where a key lives. Every string is
// preceded by its length, so that no two tables spell the same bytes.
func fingerprint(routes []Route, shards []*Shard) string {
	h := sha256.New()
	word(h, []byte("sharder/routes/1"))
	word(h, []byte(hashVersion))
	number(h, len(shards))
	for _, s := range shards {
		word(h, []byte(s.Name))
	}
	number(h, len(routes))
	for _, r := range routes {
		word(h, r.Key)
		if r.Hash {
			word(h, []byte("hash"))
		} else {
			word(h, []byte("plain"))
		}
		number(h, len(r.Shards))
		for _, name := range r.Shards {
			word(h, []byte(name))
		}
	}
	return hex.EncodeToString(h.Sum(nil))
}

func word(h hash.Hash, s []byte) {
	number(h, len(s))
	h.Write(s)
}

func number(h hash.Hash, n int) {
	var b [8]byte
	binary.BigEndian.PutUint64(b[:], uint64(n))
	h.Write(b[:])
}
