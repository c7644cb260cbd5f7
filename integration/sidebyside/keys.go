package main

import "fmt"

// The keyspace of the cells. Keys of request loops are spread over the shards by the
// letter behind "work/", and those of feeds by that behind "feed/"; list/ and solo/ lie
// on one shard and span/ on all three. Routes say where a range begins.
const routes = `
[routes]
""       = "one"
"feed/b" = "two"
"feed/c" = "three"
"list/"  = "one"
"span/b" = "two"
"span/c" = "three"
"work/"  = "one"
"work/e" = "two"
"work/i" = "three"
`

// fourRoutes spread the keys of request loops over four shards.
const fourRoutes = `
[routes]
""       = "one"
"work/d" = "two"
"work/g" = "three"
"work/j" = "four"
`

// oneRoute has everything on one shard.
const oneRoute = `
[routes]
"" = "one"
`

// shardNames are the names of shards in configurations.
var shardNames = []string{"one", "two", "three", "four"}

const (
	workLetters = "abcdefghijkl" // a third or a quarter of them on each of three or four shards
	letters     = "abc"          // one on each of three shards
	listKeys    = 1000           // keys below list/, and keys below span/
	valueSize   = 128            // bytes of every value
)

// watchKey is what all watchers watch.
var watchKey = []byte("watch/key")

// workKey is the key of one request loop. Neighbours are on different shards.
func workKey(client int) []byte {
	return fmt.Appendf(nil, "work/%c/%06d", workLetters[client*5%len(workLetters)], client)
}

// listKey is key i below list/.
func listKey(i int) []byte { return fmt.Appendf(nil, "list/%06d", i) }

// spanKey is key i below span/: the first third on shard one, the next on two, the
// last on three.
func spanKey(i int) []byte {
	return fmt.Appendf(nil, "span/%c/%06d", letters[i*len(letters)/listKeys], i)
}
