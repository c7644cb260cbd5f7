// Package integration holds the tests that run sharder as its users do: the built
// binary in front of real etcds, asked by stock etcdctl and by the scripts of
// testdata. The language of the scripts is package script's; how sharder is built
// and started is package harness's.
package integration
