package main

import "runtime"

// streamWorkers is how many goroutines gRPC keeps for requests, so that most of them don't
// begin one: with their stacks grown already, a request takes about a tenth less CPU time. One
// that finds them all busy begins its own. They take turns, so too many would each find its
// stack gone from the CPU's cache. A stack is some 16 KiB.
func streamWorkers() uint32 { return uint32(32 * runtime.GOMAXPROCS(0)) }

// requestStack is how much stack a request takes, all in all. With this much at the
// beginning, a profile of gets and puts shows no stack that grows later on.
const requestStack = 12 << 10

// deepen makes room on the stack of a goroutine that has just begun. gRPC serves each
// request on a goroutine that begins, or began before the garbage collector looked at it,
// with a few KiB; the runtime doubles a stack when it is full and copies what is on it, frame
// by frame. Deep down in the stages that was a sixth of all CPU time of sharder; up here
// there is little to copy. The room is taken when deepen is called, and is only written to
// if it is used, which it never is.
//
//go:noinline
func deepen(i int) byte {
	if i < 0 {
		var room [requestStack]byte
		return room[-i%requestStack]
	}
	return 0
}
