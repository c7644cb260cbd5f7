package main

import (
	"fmt"
	"io"
)

// bar is how fast one order over all shards has to be: a measure of a workload on a
// target, in that of another workload or target.
type bar struct {
	what    string
	measure measure
	of, to  [2]string // workload and target
	most    bool      // the ratio has to be at most the limit, otherwise at least
	limit   float64
	needs   func(p plan) bool // nil: counts in any run
}

// bars are all of them. Those whose cells a run doesn't have are not printed.
var bars = []bar{
	{what: "get, many clients", measure: rate, of: [2]string{"get-N", "sharder-C"}, to: [2]string{"get-N", "sharder-3"}, limit: 0.8},
	{what: "get, one client", measure: p50, of: [2]string{"get-1", "sharder-C"}, to: [2]string{"get-1", "etcd"}, most: true, limit: 2},
	{what: "put, many clients", measure: rate, of: [2]string{"put-N", "sharder-C"}, to: [2]string{"put-N", "sharder-3"}, limit: 0.5, needs: func(p plan) bool { return !p.fsync }},
	{what: "put that waits for the disk, one client", measure: p50, of: [2]string{"put-1", "sharder-C"}, to: [2]string{"put-1", "etcd"}, most: true, limit: 2.3, needs: func(p plan) bool { return p.fsync }},
	{what: "events of three shards against those of one", measure: p99, of: [2]string{"feed-three", "sharder-C"}, to: [2]string{"feed-one", "sharder-C"}, most: true, limit: 3},
	{what: "Txn over two shards, one client", measure: p50, of: [2]string{"cross-1", "sharder-C"}, to: [2]string{"put-1", "sharder-C"}, most: true, limit: 6},
	{what: "puts beside Txns over two shards", measure: rate, of: [2]string{"beside-N", "sharder-C"}, to: [2]string{"put-N", "sharder-C"}, limit: 0.5},
	{what: "proxy, CPU of a get", measure: proxyCPU, of: [2]string{"get-N", "sharder-1"}, to: [2]string{"get-N", "grpc-proxy"}, most: true, limit: 0.65},
	{what: "proxy, CPU of a put", measure: proxyCPU, of: [2]string{"put-N", "sharder-1"}, to: [2]string{"put-N", "grpc-proxy"}, most: true, limit: 0.8},
	{what: "proxy, CPU of a get from its cache", measure: proxyCPU, of: [2]string{"sget-N", "sharder-1"}, to: [2]string{"sget-N", "grpc-proxy"}, most: true, limit: 0.9},
	{what: "proxy, CPU of a list from its cache", measure: proxyCPU, of: [2]string{"slist-N", "sharder-1"}, to: [2]string{"slist-N", "grpc-proxy"}, most: true, limit: 0.6},
	{what: "proxy, answer to a keep-alive of 500 leases", measure: p50, of: [2]string{"leases-500", "sharder-1"}, to: [2]string{"leases-500", "etcd"}, most: true, limit: 3},
	{what: "proxy, CPU of a keep-alive of 500 leases", measure: proxyCPU, of: [2]string{"leases-500", "sharder-1"}, to: [2]string{"leases-500", "grpc-proxy"}, most: true, limit: 1},
	{what: "gateway, CPU of a get", measure: proxyCPU, of: [2]string{"get-N", "sharder-gateway"}, to: [2]string{"get-N", "etcd-gateway"}, most: true, limit: 1},
	{what: "gateway, CPU of a put", measure: proxyCPU, of: [2]string{"put-N", "sharder-gateway"}, to: [2]string{"put-N", "etcd-gateway"}, most: true, limit: 1},
	{what: "gateway, CPU of a list", measure: proxyCPU, of: [2]string{"list-N", "sharder-gateway"}, to: [2]string{"list-N", "etcd-gateway"}, most: true, limit: 1},
	{what: "gateway, memory of a connection", measure: memory, of: [2]string{"idle", "sharder-gateway"}, to: [2]string{"idle", "etcd-gateway"}, most: true, limit: 1},
	{what: "the fence check in a put", measure: etcdCPU, of: [2]string{"guarded-N", "etcd"}, to: [2]string{"routed-N", "etcd"}, most: true, limit: 1.1},
	{what: "put, four shards against one", measure: rate, of: [2]string{"put-N", "shards-4"}, to: [2]string{"put-N", "shards-1"}, limit: 3.2},
}

// printBars tells which bars the run meets, by the median over its rounds.
func (b *book) printBars(w io.Writer) {
	begun := false
	for _, bar := range bars {
		of, ok1 := b.cell(bar.of)
		to, ok2 := b.cell(bar.to)
		if !ok1 || !ok2 || bar.needs != nil && !bar.needs(b.plan) {
			continue
		}
		ratios := of.ratios(to, bar.measure)
		if len(ratios) == 0 {
			continue
		}
		if !begun {
			fmt.Fprintln(w)
			line(w, []string{"bar", "ratio", "measured", "required", ""})
			rule(w, 5)
			begun = true
		}
		line(w, bar.cells(ratios))
	}
}

// cells are a bar's line in the table.
func (b bar) cells(ratios []float64) []string {
	met, sign := median(ratios) >= b.limit, "≥"
	if b.most {
		met, sign = median(ratios) <= b.limit, "≤"
	}
	verdict := "met"
	if !met {
		verdict = "missed"
	}
	which := fmt.Sprintf("%s, `%s` %s : `%s` %s", titles[b.measure], b.of[0], b.of[1], b.to[0], b.to[1])
	return []string{b.what, which, spread(ratios), fmt.Sprintf("%s %v", sign, b.limit), verdict}
}

// cell finds what was measured of a workload on a target.
func (b *book) cell(name [2]string) (cell, bool) {
	for _, r := range b.rows {
		for _, c := range r.cells {
			if r.workload.name == name[0] && c.target == name[1] {
				return c, true
			}
		}
	}
	return cell{}, false
}
