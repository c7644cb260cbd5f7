package conf

import (
	"fmt"
	"time"
)

// Cache says what is answered from memory.
type Cache struct {
	// Bytes (bytes) bounds the memory that answers take up, with all that is needed to keep
	// them. 0 switches the cache off.
	Bytes Size
	// MaxAge (max_age) is how old the last sign of life of the shard may be when it is
	// answered from memory.
	MaxAge time.Duration
	// AuthInterval (auth_interval) is how long a client is answered from memory without the
	// shard being asked whether it still may read.
	AuthInterval time.Duration
}

func (s *schema) cache(c *Cache) fields {
	return fields{
		"bytes":         {read: s.cacheBytes(&c.Bytes)},
		"max_age":       {read: s.duration(&c.MaxAge, probes, day)},
		"auth_interval": {read: s.duration(&c.AuthInterval, probes, day)},
	}
}

// cacheBytes reads a size that is 0 or enough for something to be kept.
func (s *schema) cacheBytes(to *Size) func(*node) {
	return func(n *node) {
		v := *to
		s.size(&v, 0, 1024*GiB)(n)
		if v > 0 && v < MiB {
			s.wrong(n, fmt.Sprintf("%v is too little for anything to be kept", v), `write "1MiB" or more, or "0" for no cache`)
			return
		}
		*to = v
	}
}

// checkCache checks that what is cached can be known to be true.
func (s *schema) checkCache(root *node) {
	n := root.kid("cache")
	if n == nil || len(s.c.Shards) == 1 && s.c.Order == nil {
		return
	}
	s.wrong(n, "reads are answered from memory with one shard and without [order] only: with several, what is true now has to be asked of each", "take the table out")
}
