package main

// heapFloor is memory that is never touched, so it takes none, but that the garbage
// collector counts: it runs when the heap has doubled. A sharder with few watches holds
// some 10 MB and makes 100 MB of garbage in a busy second, so it would collect many times
// a second. The price is up to this much more of resident memory.
var heapFloor []byte

const heapFloorBytes = 32 << 20

func init() { heapFloor = make([]byte, heapFloorBytes) }
