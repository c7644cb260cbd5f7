package history

// needed are the writes whose outcome is unknown that may have made events which nobody
// else made; without a timeline all of them.
func needed(ops []*Op, t *Timeline) map[*Op]bool {
	found := map[*Op]bool{}
	if t == nil {
		for _, o := range ops {
			found[o] = o.writes()
		}
		return found
	}
	c := newChecker(ops, t)
	c.claim()
	c.walk()
	lost := c.lost()
	for rev := int64(2); rev <= t.Last(); rev++ {
		if c.claimed[rev] == nil {
			for _, i := range c.explanations(rev, lost) {
				found[ops[i]] = true
			}
		}
	}
	return found
}

// lost are the numbers of the writes whose outcome is unknown.
func (c *checker) lost() (lost []int) {
	for i, o := range c.ops {
		if o.outcome() == unknown && o.writes() {
			lost = append(lost, i)
		}
	}
	return lost
}

// explain finds for each revision that no acknowledged write made one of those whose
// outcome is unknown, each at most once.
func (c *checker) explain() {
	lost := c.lost()
	m := &matching{taken: map[int]int64{}}
	for rev := int64(2); rev <= c.t.Last(); rev++ {
		if c.claimed[rev] != nil || len(c.t.Events(rev)) == 0 {
			continue
		}
		m.could = func(rev int64) (out []int) { return c.explanations(rev, lost) }
		if !m.match(rev, map[int]bool{}) {
			c.fail(Invented, "nobody asked for revision %d, or it happened twice or too early: %v", rev, c.t.Events(rev))
		}
	}
}

// explanations are those of the ops that would have made a revision's events, and had
// been called while that was still possible.
func (c *checker) explanations(rev int64, among []int) (out []int) {
	for _, i := range among {
		if c.bound[i] >= rev {
			continue
		}
		_, made, err := evaluate(c.t.at(rev-1), c.ops[i].Request)
		if err == nil && sameEvents(made, c.t.Events(rev)) {
			out = append(out, i)
		}
	}
	return out
}

// matching pairs revisions with ops: a revision whose ops are all taken makes one of
// those that took them look for another.
type matching struct {
	taken map[int]int64 // op to revision
	could func(rev int64) []int
}

func (m *matching) match(rev int64, tried map[int]bool) bool {
	for _, i := range m.could(rev) {
		if tried[i] {
			continue
		}
		tried[i] = true
		if other, ok := m.taken[i]; !ok || m.match(other, tried) {
			m.taken[i] = rev
			return true
		}
	}
	return false
}
