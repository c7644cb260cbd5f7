// Package discovery finds the members of an etcd cluster by DNS, by the SRV records that
// etcd's own clients look for. A [Lookup] asks once; whoever uses it asks again from time
// to time, and decides what becomes of members that are no longer found.
package discovery
