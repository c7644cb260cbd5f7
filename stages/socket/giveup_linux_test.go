package socket

import (
	"net"
	"syscall"
	"testing"
	"time"
)

func TestTheSystemIsToldWhenToGiveUp(t *testing.T) {
	told := func(c net.Conn) (ms int) {
		raw, err := c.(syscall.Conn).SyscallConn()
		if err != nil {
			t.Fatal(err)
		}
		if err := raw.Control(func(fd uintptr) { ms, err = syscall.GetsockoptInt(int(fd), syscall.IPPROTO_TCP, userTimeout) }); err != nil {
			t.Fatal(err)
		}
		if err != nil {
			t.Fatal(err)
		}
		return ms
	}
	a, b := pair(t, "tcp")
	for d, want := range map[time.Duration]int{0: 0, -time.Second: 0} {
		if err := GiveUpAfter(b, d); err != nil || told(b) != want {
			t.Errorf("%v: %d, %v", d, told(b), err)
		}
	}
	for d, want := range map[time.Duration]int{1500 * time.Millisecond: 1500, time.Microsecond: 1} {
		if err := GiveUpAfter(a, d); err != nil || told(a) != want {
			t.Errorf("%v: %d, %v", d, told(a), err)
		}
	}
	u, _ := pair(t, "unix")
	if err := GiveUpAfter(u, time.Second); err != nil {
		t.Error(err)
	}
}
