package order

import "sort"

// run is a stretch of one shard's revisions whose global revisions are a stretch, too:
// start+k on the shard is global+k for every k below length.
type run struct{ start, length, global int64 }

// end is the last of the shard's revisions in the run.
func (r run) end() int64 { return r.start + r.length - 1 }

// globalUpTo is the global revision of the run's last revision at or below rev.
func (r run) globalUpTo(rev int64) int64 { return r.global + min(rev-r.start, r.length-1) }

// runs are what is known of one shard's revisions, ascending in both numbers. A
// revision in no run has no global one: it is sharder's own, or nothing refers to it
// any more. 24 bytes a run.
//
// All but the last run never change, so that whoever has taken the slice under the
// state's lock may go on reading those without it.
type runs []run

// add names n revisions of the shard from start on, the first of them global. Both
// must be above all that is there.
func (rs runs) add(start, n, global int64) runs {
	if last := len(rs) - 1; last >= 0 {
		r := &rs[last]
		if r.start+r.length == start && r.global+r.length == global {
			r.length += n
			return rs
		}
	}
	return append(rs, run{start, n, global})
}

// at is the index of the last run that begins at or before the shard's revision, or -1.
func (rs runs) at(rev int64) int {
	return sort.Search(len(rs), func(i int) bool { return rs[i].start > rev }) - 1
}

// holding is the index of the run that has the shard's revision in it; false if none has.
func (rs runs) holding(rev int64) (int, bool) {
	i := rs.at(rev)
	return i, i >= 0 && rev <= rs[i].end()
}

// global gives the global revision of a shard's revision; false if it has none.
func (rs runs) global(rev int64) (int64, bool) {
	i, ok := rs.holding(rev)
	if !ok {
		return 0, false
	}
	return rs[i].global + rev - rs[i].start, true
}

// local is the inverse of global.
func (rs runs) local(global int64) (int64, bool) {
	rev := rs.floor(global)
	g, ok := rs.global(rev)
	return rev, ok && g == global
}

// floor is the shard's greatest named revision whose global one is at most global; 0 if
// there is none.
func (rs runs) floor(global int64) int64 {
	i := sort.Search(len(rs), func(i int) bool { return rs[i].global > global }) - 1
	if i < 0 {
		return 0
	}
	return rs[i].start + min(rs[i].length-1, global-rs[i].global)
}

// ceil is the shard's smallest named revision whose global one is at least global; false
// if none is known.
func (rs runs) ceil(global int64) (int64, bool) {
	i := sort.Search(len(rs), func(i int) bool { return rs[i].global+rs[i].length > global })
	if i == len(rs) {
		return 0, false
	}
	return rs[i].start + max(0, global-rs[i].global), true
}

// next is the global revision of the shard's first named revision above rev; false if
// none is known.
func (rs runs) next(rev int64) (int64, bool) {
	if g, ok := rs.global(rev + 1); ok {
		return g, true
	}
	if i := rs.at(rev) + 1; i < len(rs) {
		return rs[i].global, true
	}
	return 0, false
}
