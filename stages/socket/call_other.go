//go:build !unix

package socket

import "errors"

// direct says that the system has its own way to wait, which is the only one.
const direct = false

// read is not for this system.
func read(uintptr, []byte) (int, error) { return 0, errors.ErrUnsupported }

// write is not for this system.
func write(uintptr, []byte) (int, error) { return 0, errors.ErrUnsupported }
