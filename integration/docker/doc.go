// Package docker runs sharder and its shards as containers on a network of their own
// and breaks what only hosts can lose: their network, their clock of life, all of
// them at once. The tests have the build tag docker and need a Docker engine and its
// command line tool, but no registry: the images hold nothing but binaries built from
// this module.
//
//	go test -tags docker -count=1 ./integration/docker
package docker
