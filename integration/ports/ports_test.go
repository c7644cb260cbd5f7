package ports

import (
	"net"
	"strconv"
	"testing"
)

func TestPortsAreFreeAndOfOneProcessOnce(t *testing.T) {
	seen := map[string]bool{}
	for range 60 { // three blocks of them
		some, err := Free(4)
		if err != nil || len(some) != 4 {
			t.Fatal(some, err)
		}
		for _, addr := range append(some, Of(t)) {
			_, port, err := net.SplitHostPort(addr)
			if n, _ := strconv.Atoi(port); err != nil || n < first || n >= last || n%block == 0 || seen[addr] {
				t.Fatalf("%s (%v), seen: %v", addr, err, seen[addr])
			}
			seen[addr] = true
		}
	}
	for _, door := range mine.doors {
		if silent(door.Addr().String()) {
			t.Errorf("%s: another process could claim this block", door.Addr())
		}
	}
	if len(mine.doors) < 3 {
		t.Errorf("%d blocks", len(mine.doors))
	}
	l, err := net.Listen("tcp", Of(t))
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	if silent(l.Addr().String()) {
		t.Error("a port where somebody listens is free")
	}
}
