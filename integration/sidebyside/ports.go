package main

import (
	"fmt"
	"math/rand/v2"
	"net"
	"strconv"
)

// Ports are taken from below the range that kernels take outgoing ports from, so that
// none is lost to a client between finding it and binding it.
const (
	firstPort = 12000
	lastPort  = 32000
)

// freeAddrs are n different loopback addresses on which nothing listens.
func freeAddrs(n int) ([]string, error) {
	var addrs []string
	var held []net.Listener // until all are found, so that none is found twice
	defer func() {
		for _, l := range held {
			_ = l.Close()
		}
	}()
	for range 100 * n {
		if len(addrs) == n {
			return addrs, nil
		}
		addr := net.JoinHostPort("127.0.0.1", strconv.Itoa(firstPort+rand.IntN(lastPort-firstPort)))
		if l, err := net.Listen("tcp", addr); err == nil {
			held, addrs = append(held, l), append(addrs, addr)
		}
	}
	return nil, fmt.Errorf("no %d free loopback ports between %d and %d", n, firstPort, lastPort)
}
