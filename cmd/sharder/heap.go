package main

import "runtime"

// heapFloorBytes are never touched, so they take no memory, but the garbage collector
// counts them: it runs when the heap has doubled. A sharder with few watches holds some 10
// MB and makes 100 MB of garbage in a busy second, so it would collect many times a
// second. The price is up to this much more of resident memory.
const heapFloorBytes = 32 << 20

// withHeapFloor runs the program above the floor.
func withHeapFloor(program func() int) int {
	floor := make([]byte, heapFloorBytes)
	defer runtime.KeepAlive(floor)
	return program()
}
