package main

import (
	"syscall"
	"time"
	"unsafe"
)

// cpu is the CPU time that a process has spent, all its threads together, in nanoseconds:
// its own clock (clock_getcpuclockid(3)). /proc counts in hundredths of a second, which are
// more than a short cell's differences.
func cpu(pid int) (time.Duration, bool) {
	var t syscall.Timespec
	const schedule = 2 // CPUCLOCK_SCHED
	id := uintptr(^pid<<3 | schedule)
	_, _, errno := syscall.Syscall(syscall.SYS_CLOCK_GETTIME, id, uintptr(unsafe.Pointer(&t)), 0)
	return time.Duration(t.Nano()), errno == 0
}
