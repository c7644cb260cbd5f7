package backend

import (
	"fmt"
	"slices"
	"strings"

	"github.com/sharder/sharder/stages"
)

// maxDiffLines bounds what a mismatch prints of the routes.
const maxDiffLines = 40

// StampMismatch says that a shard was first used as something else. Its text is
// made for the person who has to decide which side is right.
type StampMismatch struct {
	Shard string // its name in this configuration
	Got   Stamp  // what the shard says
	Want  Stamp  // what this configuration says
}

// differs compares what counts. The routes in words are for people.
func differs(a, b Stamp) bool {
	return a.Deployment != b.Deployment || a.Shard != b.Shard || a.Fingerprint != b.Fingerprint || a.Home != b.Home
}

// onlyDeployment reports whether the deployment is all that differs.
func (m *StampMismatch) onlyDeployment() bool {
	same := m.Got
	same.Deployment = m.Want.Deployment
	return differs(m.Got, m.Want) && !differs(same, m.Want)
}

// Error shows both sides, line by line, and what can be done.
func (m *StampMismatch) Error() string {
	var b strings.Builder
	fmt.Fprintf(&b, "sharder: %s is stamped for something else (-: what it says, +: what this configuration says)", calling(m.Shard))
	line := func(what, got, want string) {
		if got != want {
			fmt.Fprintf(&b, "\n  - %s: %s\n  + %s: %s", what, got, what, want)
		}
	}
	line("deployment", m.Got.Deployment, m.Want.Deployment)
	line("shard", m.Got.Shard, m.Want.Shard)
	line("home of leases", m.Got.Home, m.Want.Home)
	if m.reordered() {
		line("shards in their order", strings.Join(m.Got.Shards, ", "), strings.Join(m.Want.Shards, ", "))
	}
	line("routes fingerprint", m.Got.Fingerprint, m.Want.Fingerprint)
	if m.Got.Fingerprint != m.Want.Fingerprint && !m.reordered() {
		for _, l := range diffLines(m.Got.Routes, m.Want.Routes) {
			b.WriteString("\n    " + l)
		}
	}
	b.WriteString("\n  remedy: " + m.remedy())
	return b.String()
}

// remedy is advice about the most basic difference.
func (m *StampMismatch) remedy() string {
	switch {
	case m.Got.Deployment != m.Want.Deployment:
		return fmt.Sprintf("this etcd cluster belongs to another deployment; correct the endpoints of %s", section(m.Shard))
	case m.Got.ordered() != m.Want.ordered():
		return m.orderRemedy()
	case m.Got.Shard != m.Want.Shard && (m.Got.Shard == stages.OrderName || m.Want.Shard == stages.OrderName):
		return fmt.Sprintf("this etcd cluster is %s of this deployment; the endpoints of %s and %s are mixed up",
			section(m.Got.Shard), section(m.Shard), section(m.Got.Shard))
	case m.Got.Shard != m.Want.Shard:
		return fmt.Sprintf("this etcd cluster is shard %q; either the endpoints of [shards.%s] and [shards.%s] are mixed up, or the shard was renamed: give it its old name back",
			m.Got.Shard, m.Shard, m.Got.Shard)
	case m.reordered() && !m.sameShards():
		return "the shards of a deployment are fixed when it begins; give this sharder the tables [shards.NAME] and the [routes] that it began with"
	case m.reordered():
		return "shards are numbered by their place in the file, and revisions were given out by these numbers; put the tables [shards.NAME] back into their old order"
	case m.Got.Fingerprint != m.Want.Fingerprint:
		return "give this sharder the [routes] its shards were first used with; keys do not move when a route is edited"
	default:
		return fmt.Sprintf("leases live on shard %q; keep it the first of the shards", m.Got.Home)
	}
}

// reordered reports whether the shards' names or their order differ, of two deployments
// that both tell.
func (m *StampMismatch) reordered() bool {
	return m.Got.Shards != nil && m.Want.Shards != nil && !slices.Equal(m.Got.Shards, m.Want.Shards)
}

// sameShards reports whether both sides have the same shards, in whatever order.
func (m *StampMismatch) sameShards() bool {
	return slices.Equal(slices.Sorted(slices.Values(m.Got.Shards)), slices.Sorted(slices.Values(m.Want.Shards)))
}

// orderRemedy is advice where one side has an order cluster and the other has none. What
// a deployment began as it stays: its revisions mean something else.
func (m *StampMismatch) orderRemedy() string {
	if m.Got.ordered() {
		return "this deployment has one order over all shards; add the table [order] again, with the endpoints it had"
	}
	return "this deployment began without [order]: each shard has revisions of its own, and clients hold some of them. Take the table [order] out; for one order, begin a new deployment and import the keys"
}

// calling is what errors call a cluster.
func calling(shard string) string {
	if shard == stages.OrderName {
		return "order cluster"
	}
	return "shard " + shard
}

// section is the table of the configuration that speaks of a shard.
func section(shard string) string {
	if shard == stages.OrderName {
		return shard
	}
	return "[shards." + shard + "]"
}

// diffLines gives the lines only one side has, in their order, each side for itself.
func diffLines(got, want []string) []string {
	lines := append(missing("- ", got, want), missing("+ ", want, got)...)
	switch {
	case len(lines) == 0:
		return []string{"(the routes read the same; they were fingerprinted by another version of sharder)"}
	case len(lines) > maxDiffLines:
		return append(lines[:maxDiffLines:maxDiffLines], fmt.Sprintf("… and %d lines more", len(lines)-maxDiffLines))
	}
	return lines
}

// missing lists, with a mark, the lines of a that b doesn't have.
func missing(mark string, a, b []string) []string {
	have := make(map[string]bool, len(b))
	for _, l := range b {
		have[l] = true
	}
	var out []string
	for _, l := range a {
		if !have[l] {
			out = append(out, mark+l)
		}
	}
	return out
}
