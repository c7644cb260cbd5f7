//go:build unix

// Etcdsuite runs etcd's own end-to-end tests with sharder in the place of etcd's grpc-proxy.
//
// etcd has a variant of them (build tag cluster_proxy) that starts `etcd grpc-proxy start`
// in front of every member, waits for its ready line, speaks to it in the clear and over TLS
// with etcdctl and etcd's client, and ends it with SIGTERM. Here the etcd that they start is
// package standin, which becomes sharder when it is called as the proxy:
//
//	go run ./integration/etcdsuite               all of it, about half an hour
//	go run ./integration/etcdsuite -few          a few that show each part, for a CI
//	go run ./integration/etcdsuite -run TestLock some of it
//	go run ./integration/etcdsuite -proxy etcd   with etcd's own proxy, to compare
//
// Every test has to pass, except for those in known.go: each has the proxies that it fails
// on and the reason, and passing there is an error too. The tests come from the module cache,
// in the version of etcd that sharder is built with, and nothing in them is changed. They
// use fixed ports (2379, 2380, 23790, from 20000 on), so that one run at a time is possible on a
// machine, and one of them a default route.
//
//	main    the flags and the report
//	bench   the tests' module and the programs, laid out as in etcd's own tree
//	suite   go test, and what it says
//	judge   how every test has to end
//	known   the tests that can't pass
package main
