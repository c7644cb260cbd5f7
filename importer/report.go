package importer

import (
	"fmt"
	"io"
	"time"
)

// Report says what an import did, or would do. Numbers of keys and leases are the
// verification's, those of writes are of all runs since the import began.
type Report struct {
	Mode     Mode
	Source   string // the id of the source's cluster
	Revision int64  // the source's, which was copied
	Rounds   int    // at how many revisions of the source it was tried or done
	Resumed  bool   // an earlier run had begun

	Start                int64 // the target's revision before the first write
	Puts, Deletes, Bytes int64 // written
	Began                time.Time

	Verified       bool // a comparison came to its end; what follows is from it
	VerifiedAt     int64
	Keys, KeyBytes int64
	LeasedKeys     int64
	Leases         int // with keys
	EmptyLeases    int // without; not brought
	EndedLeases    int // ended in the source in the meantime; they and their keys were not brought
	EndedKeys      int64
	Differences    int64
	Listed         []Difference // the first of them
	Plan           *Plan        // what there was to do, if it was looked at
}

// of takes over what the record says.
func (r *Report) of(rec *record) {
	r.Source, r.Revision, r.Rounds, r.Start, r.Began = rec.Source, rec.Revision, rec.Rounds, rec.Start, rec.Began
	r.Puts, r.Deletes, r.Bytes = rec.Puts, rec.Deletes, rec.Bytes
}

// LowRevisions tells that the target's revisions did not begin above the source's: a
// revision that a client has of the source may be another moment in the target.
func (r *Report) LowRevisions() bool { return r.Start < r.Revision }

// Plan is what there is to do.
type Plan struct {
	Puts, PutBytes, Deletes, Same int64
	Conflicts                     int64
	FirstConflict                 []byte
	EndedKeys                     int64 // their leases have ended in the source
	Leases                        int   // to be granted

	leases map[int64]bool
}

func (p *Plan) lease(id int64, ended bool) {
	if p.leases == nil {
		p.leases = map[int64]bool{}
	}
	if ended {
		p.EndedKeys++
	} else if !p.leases[id] {
		p.leases[id] = true
		p.Leases++
	}
}

func (p *Plan) add(v verdict, of pair) {
	switch v {
	case same:
		p.Same++
	case put:
		p.Puts++
		p.PutBytes += size(of.src)
	case remove:
		p.Deletes++
	case conflict:
		if p.Conflicts++; p.Conflicts == 1 {
			p.FirstConflict = of.key()
		}
	}
}

// Write tells the report to a person.
func (r *Report) Write(w io.Writer) {
	fmt.Fprintf(w, "source: cluster %s at revision %d\n", r.Source, r.Revision)
	if r.Mode == DryRun && r.Plan != nil {
		r.Plan.write(w)
	}
	if r.Mode == Import && r.Puts+r.Deletes > 0 {
		fmt.Fprintf(w, "written: %d puts (%s), %d deletes, in %s since the import began\n", r.Puts, Bytes(r.Bytes), r.Deletes, time.Since(r.Began).Round(time.Second))
	}
	if r.Verified {
		r.writeVerification(w)
	}
	if r.Mode == Import && r.Verified {
		r.writeLost(w)
	}
	if r.LowRevisions() {
		fmt.Fprintf(w, "warning: the target's revisions began at %d, which the source has passed (%d). A client that comes with a revision of the source's will wait for it, or take it for another moment. "+
			"A new deployment begins above it with first_revision = %d (or more) in [order]\n", r.Start, r.Revision, r.Revision+1)
	}
}

func (p *Plan) write(w io.Writer) {
	fmt.Fprintf(w, "to do: %d puts (%s), %d deletes, %d leases to grant; %d keys are the same already\n", p.Puts, Bytes(p.PutBytes), p.Deletes, p.Leases, p.Same)
	if p.EndedKeys > 0 {
		fmt.Fprintf(w, "not to be brought: %d keys whose leases have ended in the source\n", p.EndedKeys)
	}
	if p.Conflicts > 0 {
		fmt.Fprintf(w, "conflicts: %d keys of the target that are not the import's, the first is %q\n", p.Conflicts, p.FirstConflict)
	}
}

func (r *Report) writeVerification(w io.Writer) {
	fmt.Fprintf(w, "compared: %d keys (%s), values and leases, with the target at revision %d\n", r.Keys, Bytes(r.KeyBytes), r.VerifiedAt)
	if r.Leases > 0 {
		fmt.Fprintf(w, "leases: %d with %d keys; they have their ids, and their time begins anew with the whole TTL\n", r.Leases, r.LeasedKeys)
	}
	if r.EmptyLeases > 0 {
		fmt.Fprintf(w, "not brought: %d leases without keys\n", r.EmptyLeases)
	}
	if r.EndedLeases > 0 {
		fmt.Fprintf(w, "not brought: %d keys of %d leases that have ended in the source\n", r.EndedKeys, r.EndedLeases)
	}
	if r.Differences == 0 {
		fmt.Fprintln(w, "no difference")
		return
	}
	fmt.Fprintf(w, "%d differences:\n", r.Differences)
	for _, d := range r.Listed {
		if d.Key == nil {
			fmt.Fprintf(w, "  %s\n", d.How)
			continue
		}
		fmt.Fprintf(w, "  %q: %s\n", d.Key, d.How)
	}
	if more := r.Differences - int64(len(r.Listed)); more > 0 {
		fmt.Fprintf(w, "  and %d more\n", more)
	}
}

func (r *Report) writeLost(w io.Writer) {
	fmt.Fprintln(w, "not brought, because no client can write them: create and mod revisions, versions, and the history. Each key begins with version 1 at a revision of the target; compares and watches that name a revision of the source have to start over, and locks and elections have to be taken anew")
}

// Bytes writes a number of bytes for people.
func Bytes(n int64) string {
	const unit = 1024
	if n < unit {
		return fmt.Sprintf("%d B", n)
	}
	value, units := float64(n)/unit, "KMGTPE"
	for value >= unit && len(units) > 1 {
		value, units = value/unit, units[1:]
	}
	return fmt.Sprintf("%.1f %ciB", value, units[0])
}
