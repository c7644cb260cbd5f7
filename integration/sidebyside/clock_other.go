//go:build !linux

package main

import "time"

// cpu is not known where there is no clock of a process.
func cpu(int) (time.Duration, bool) { return 0, false }
