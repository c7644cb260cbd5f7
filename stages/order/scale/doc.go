// Package scale holds a simulation of load: the real Order of many sharders, appending
// to one order cluster at once. It has tests only; nothing imports it.
//
//	go test ./stages/order/scale                    a moment of each size
//	SCALE_SECONDS=5 go test -v ./stages/order/scale  the tables of docs/scale.md
//
// Everything runs inside a bubble of testing/synctest, in which time is made up: what
// is simulated is waiting, for the network, for disks and for the CPUs of the order
// cluster (cluster_test.go), with the costs that were measured on a real one
// (docs/performance.md). The sharders' own CPU time counts as nothing.
//
// Package sim, next to it, is about what may go wrong; nothing goes wrong here.
package scale
