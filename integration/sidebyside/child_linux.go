package main

import "syscall"

// childAttr ties a child's life to this process, however this process ends, and keeps
// the terminal's interrupt from it: the order of stopping is ours.
func childAttr() *syscall.SysProcAttr {
	return &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL, Setpgid: true}
}
