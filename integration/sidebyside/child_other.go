//go:build !linux

package main

import "syscall"

// childAttr is empty where the system can't tie a child to its parent.
func childAttr() *syscall.SysProcAttr { return nil }
