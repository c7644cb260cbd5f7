package script

import (
	"fmt"
	"strconv"
	"strings"
)

// Shape says how a server that ran a script is put together.
type Shape int

// The servers a script can run on.
const (
	PlainEtcd  Shape = iota // the truth
	OneShard                // sharder, every revision is the etcd's
	ManyShards              // sharder, revisions are each shard's own
	Ordered                 // sharder, many shards, one revision over all of them
)

// Compare lists where two runs of the same script differ: the first on a plain
// etcd, the second on a server of the shape.
func Compare(s *Script, etcd, other *Run, shape Shape) []string {
	var wrong []string
	var base [2]int64 // first revision of a single-shard block, in each run
	for i, st := range s.Statements {
		if i >= len(etcd.Replies) || i >= len(other.Replies) {
			return append(wrong, fmt.Sprintf("%s:%d: not every server came this far", s.Name, st.Line))
		}
		if !st.SingleShard {
			base = [2]int64{}
		}
		if st.differsOn(shape) {
			continue
		}
		a, b := etcd.Replies[i], other.Replies[i]
		if st.sortedOn(shape) {
			a = sorted(a)
		}
		if st.SingleShard && base[0] == 0 {
			base = [2]int64{firstRev(a), firstRev(b)}
		}
		c := comparison{own: shape == ManyShards || shape == Ordered && st.Apart, relative: st.SingleShard && base[0] != 0, base: base}
		if diff := c.lines(a, b); diff != "" {
			wrong = append(wrong, fmt.Sprintf("%s:%d: %s\n  %s\n  etcd:\n%s\n  %s:\n%s",
				s.Name, st.Line, st.Text, diff, show(a), other.Server, show(b)))
		}
	}
	return wrong
}

// comparison is how revisions are to be compared.
type comparison struct {
	own      bool // revisions are of one server alone
	relative bool
	base     [2]int64
}

// lines tells the first difference of two replies, "" if there is none.
func (c comparison) lines(a, b []Line) string {
	if len(a) != len(b) {
		return fmt.Sprintf("%d lines against %d", len(a), len(b))
	}
	for i := range a {
		if a[i].Depth != b[i].Depth || len(a[i].Words) != len(b[i].Words) {
			return fmt.Sprintf("line %d is made otherwise", i+1)
		}
		for j, w := range a[i].Words {
			if !c.same(w, b[i].Words[j]) {
				return fmt.Sprintf("line %d: %s=%s against %s", i+1, w.Name, spell(w.Text), spell(b[i].Words[j].Text))
			}
		}
	}
	return ""
}

// same compares one word.
func (c comparison) same(a, b Word) bool {
	switch {
	case a.Name != b.Name:
		return false
	case a.Name == "remaining": // a clock
		return true
	case revisionWords[a.Name] && c.own:
		return !c.relative || number(a)-c.base[0] == number(b)-c.base[1]
	}
	return a.Text == b.Text
}

// number is a word's value; words of revisions are always numbers.
func number(w Word) int64 {
	n, _ := strconv.ParseInt(w.Text, 10, 64)
	return n
}

// firstRev is the header's revision of a reply, 0 if it has none.
func firstRev(lines []Line) int64 {
	for _, l := range lines {
		for _, w := range l.Words {
			if w.Name == "rev" {
				return number(w)
			}
		}
	}
	return 0
}

// showLines is how much of a reply a message shows.
const showLines = 20

// show writes lines for a message.
func show(lines []Line) string {
	var b strings.Builder
	for i, l := range lines {
		if i > 0 {
			b.WriteByte('\n')
		}
		if i == showLines {
			fmt.Fprintf(&b, "    … %d more", len(lines)-i)
			break
		}
		b.WriteString("    " + l.String())
	}
	return b.String()
}
