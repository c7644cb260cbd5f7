// Package docker runs sharders, their shards and their order cluster as containers on
// networks of their own, and breaks what only hosts can lose: their network, their clock
// of life, all of them at once.
//
//	engine     the docker tool, images, networks; whatever happens, nothing is left
//	container  one host, which dies, freezes and is cut off
//	fleet      one logical etcd: three shards, an order cluster of three members, two
//	           sharders, each on three networks: of clients, of shards, of the order
//	faults     what befalls it while clients and watchers are at work (witness.Trial),
//	           whose history package history judges
//	refusals   what is refused, and what is not, without the order
//	proxy      one etcd of three members behind two grpc-proxies, a soak
//	apart      shards without an order, each with revisions of its own
//
// The tests have the build tag docker and need a Docker engine and its command line tool,
// but no registry: the images hold nothing but binaries built from this module.
//
//	go test -tags docker -count=1 ./integration/docker
//
// SHARDER_ROUNDS lets everything go wrong more often, SHARDER_SEED repeats the choices of
// a run.
package docker
