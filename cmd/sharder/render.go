package main

import (
	"fmt"
	"io"
	"strconv"
	"strings"
	"text/tabwriter"
)

// print writes the report for people.
func (r *report) print(w io.Writer) {
	r.printHead(w)
	r.printClusters(w)
	if r.Order != nil {
		r.printTransactions(w)
	}
	for _, p := range r.Problems {
		fmt.Fprintf(w, "problem: %s\n", p)
	}
	if len(r.Problems) == 0 {
		fmt.Fprintln(w, "no problem found")
	}
}

func (r *report) printHead(w io.Writer) {
	deployment := r.Deployment
	if deployment == "" {
		deployment = "unknown"
	}
	switch o := r.Order; {
	case o == nil && len(r.Shards) == 1:
		fmt.Fprintln(w, "one etcd cluster; revisions are its own")
	case o == nil:
		fmt.Fprintf(w, "deployment %s: %s, each with its own revisions\n", deployment, counted(len(r.Shards)))
	default:
		fmt.Fprintf(w, "deployment %s: %s, one revision\n", deployment, counted(len(r.Shards)))
		if o.Known {
			fmt.Fprintf(w, "revision %d, compacted at %d; the order log is at position %d, with %d entries, and %d runs in the map\n",
				o.Revision, o.Compacted, o.Position, o.Entries, o.Runs)
		}
	}
	fmt.Fprintf(w, "as seen by %s at %s\n\n", r.From, r.Time.Format("2006-01-02 15:04:05 MST"))
}

// printClusters writes a line for each cluster.
func (r *report) printClusters(w io.Writer) {
	t := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	fmt.Fprintln(t, "SHARD\tREVISION\tCOVERED\tLAG\tFENCE\tCLOSED\tDB SIZE\tIN USE\tVERSION\tLEADER\tALARMS")
	if o := r.Order; o != nil {
		fmt.Fprintf(t, "[order]\t-\t-\t-\t-\t-\t%s\n", o.cells())
	}
	for _, s := range r.Shards {
		own := strings.Join([]string{count(s.Revision), count(s.Covered), lag(s), count(s.Fence), count(s.Closed)}, "\t")
		fmt.Fprintf(t, "%s\t%s\t%s\n", s.Name, own, s.cells())
	}
	_ = t.Flush()
	fmt.Fprintln(w)
}

// cells are those columns that all clusters have.
func (c clusterReport) cells() string {
	if c.Version == "" {
		return "no answer"
	}
	alarms := "-"
	if len(c.Alarms) > 0 {
		alarms = strings.Join(c.Alarms, ", ")
	}
	leader := c.Leader
	if leader == "" {
		leader = "none"
	}
	return strings.Join([]string{bytesOf(c.DBSize), bytesOf(c.DBSizeInUse), c.Version, leader, alarms}, "\t")
}

func (r *report) printTransactions(w io.Writer) {
	switch {
	case !r.Order.Known:
		fmt.Fprintln(w, "which transactions over several shards are open is not known: that is in the order log")
		return
	case len(r.Transactions) == 0:
		fmt.Fprintln(w, "no transaction over several shards is open")
		return
	}
	t := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	fmt.Fprintln(t, "BATCH\tAGE\tSTATE\tSTEP\tCOORDINATOR\tITEMS\tSHARDS")
	for _, b := range r.Transactions {
		age, by := "-", b.By
		if !b.Opened.IsZero() {
			age = shortly(r.Time.Sub(b.Opened))
		}
		if by == "" {
			by = "-"
		}
		items := strconv.Itoa(b.Items)
		if b.Items == 0 {
			items = b.Kind
		}
		fmt.Fprintf(t, "%d\t%s\t%s\t%s\t%s\t%s\t%s\n", b.ID, age, b.State, b.Step, by, items, strings.Join(b.Shards, ", "))
	}
	_ = t.Flush()
	fmt.Fprintln(w)
}

// count is a number, or that there is none.
func count(n int64) string {
	if n == 0 {
		return "-"
	}
	return strconv.FormatInt(n, 10)
}

func lag(s shardReport) string {
	if s.Covered == 0 || s.Revision == 0 {
		return "-"
	}
	return strconv.FormatInt(s.Lag, 10)
}

// bytesOf is a size as etcdctl prints it, roughly.
func bytesOf(n int64) string {
	const units = "KMGT"
	if n < 1<<10 {
		return fmt.Sprintf("%d B", n)
	}
	f, unit := float64(n)/(1<<10), 0
	for f >= 1<<10 && unit < len(units)-1 {
		f, unit = f/(1<<10), unit+1
	}
	return fmt.Sprintf("%.1f %ciB", f, units[unit])
}
