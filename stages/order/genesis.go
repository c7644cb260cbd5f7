package order

import (
	"errors"
	"fmt"
	"strings"
)

// Genesis is the first entry of a log: what the shards were when they became one. It is
// written once and never changes.
type Genesis struct {
	// Deployment is the id that the stamps of all shards carry.
	Deployment string `json:"deployment"`
	// Fingerprint identifies the routes; Routes are the same in words, for people.
	Fingerprint string   `json:"fingerprint"`
	Routes      []string `json:"routes"`
	// FirstRevision moves the start of the global revisions up: nothing that is written
	// after this has a lower one. Below 2 it changes nothing.
	FirstRevision int64 `json:"first_revision,omitempty"`
	// Shards are all shards; a shard's number is its position.
	Shards []GenesisShard `json:"shards"`
}

// GenesisShard is one shard as it was found.
type GenesisShard struct {
	Name      string `json:"name"`
	ClusterID uint64 `json:"cluster_id"`
	// Revision is the one up to which the first cut covers the shard, at least 1.
	Revision int64 `json:"revision"`
	// Compacted is the shard's compaction revision, 0 if it never was.
	Compacted int64 `json:"compacted,omitempty"`
	// Internal are the revisions at or below Revision that are sharder's own; they get
	// no number. Ascending.
	Internal []int64 `json:"internal,omitempty"`
}

// check finds out whether a genesis makes sense, before it is written or replayed.
func (g *Genesis) check() error {
	if len(g.Shards) == 0 || len(g.Shards) > maxShards {
		return fmt.Errorf("%d shards", len(g.Shards))
	}
	left := maxRevision - max(0, g.FirstRevision) // no sum of revisions may overflow
	for i, s := range g.Shards {
		if left -= max(0, s.Revision); left < 0 {
			return errors.New("the revisions are too large to be any")
		}
		last := int64(1) // revision 1 is the empty store; it is nobody's
		if s.Revision < 1 || s.Compacted > s.Revision || s.Compacted < 0 {
			return fmt.Errorf("shard %d (%q) at revision %d, compacted at %d", i, s.Name, s.Revision, s.Compacted)
		}
		for _, r := range s.Internal {
			if r <= last || r > s.Revision {
				return fmt.Errorf("shard %d (%q): internal revision %d of %d", i, s.Name, r, s.Revision)
			}
			last = r
		}
	}
	return nil
}

// Difference says how the shards and routes that a sharder was configured with differ
// from those the log was made for; "" if they don't. names are in the order of the file.
func (g *Genesis) Difference(names []string, fingerprint string, routes []string) string {
	var have []string
	for _, s := range g.Shards {
		have = append(have, s.Name)
	}
	if a, b := strings.Join(have, ", "), strings.Join(names, ", "); a != b {
		return fmt.Sprintf("the order log was made for the shards %s (in this order); the file has %s", a, b)
	}
	if g.Fingerprint == fingerprint {
		return ""
	}
	var b strings.Builder
	b.WriteString("the order log was made for other routes")
	for _, l := range g.Routes {
		fmt.Fprintf(&b, "\n  log:  %s", l)
	}
	for _, l := range routes {
		fmt.Fprintf(&b, "\n  file: %s", l)
	}
	return b.String()
}
