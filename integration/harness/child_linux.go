package harness

import "syscall"

// childAttr makes a child die with the test process: a test that is killed by its
// time-out leaves no servers behind.
func childAttr() *syscall.SysProcAttr {
	return &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
}
