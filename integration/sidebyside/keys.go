package main

import "fmt"

// The keyspace of the cells. Keys of request loops are spread over the three shards by
// the letter behind "work/"; list/ lies on one shard and span/ on all three. Routes
// say where a range begins.
const routes = `
[routes]
""       = "one"
"span/b" = "two"
"span/c" = "three"
"work/"  = "one"
"work/b" = "two"
"work/c" = "three"
`

const (
	letters   = "abc"
	listKeys  = 1000 // keys below list/, and keys below span/
	valueSize = 128  // bytes of every value
)

// watchKey is what all watchers watch.
var watchKey = []byte("watch/key")

// workKey is the key of one request loop.
func workKey(client int) []byte {
	return fmt.Appendf(nil, "work/%c/%06d", letters[client%len(letters)], client)
}

// listKey is key i below list/.
func listKey(i int) []byte { return fmt.Appendf(nil, "list/%06d", i) }

// spanKey is key i below span/: the first third on shard one, the next on two, the
// last on three.
func spanKey(i int) []byte {
	return fmt.Appendf(nil, "span/%c/%06d", letters[i*len(letters)/listKeys], i)
}
