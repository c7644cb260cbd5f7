package stages

import (
	"bytes"
	"errors"
	"fmt"
	"slices"
	"sort"
	"strings"
)

// Route is one line of the routing table: where the keys that begin at Key live.
//
// A plain line (Hash false) names one shard and holds every key from Key up to
// the next line. A hash line (Hash true) names a list and holds exactly the keys
// that have Key as their prefix, each on one shard of the list.
type Route struct {
	Key    []byte   // where the line begins; empty is the beginning of all keys
	Shards []string // names; one for a plain line, one or more for a hash line, in an order that matters
	Hash   bool     // spread the keys with prefix Key over Shards
}

// Table says which shard holds a key. It is an immutable value, safe for any
// number of readers; whoever wants other routes makes another table.
//
// The rule: a key belongs to the last line that is not above it, leaving out the
// hash lines whose prefix it does not have. So behind the prefix of a hash line
// the nearest line above that has not ended goes on; a plain line inside a hash
// prefix takes over from the hash line and holds until the next line, also
// beyond that prefix. Because a line says only where it begins, there are no
// gaps and no overlaps.
type Table struct {
	shards      []*Shard
	routes      []Route
	segments    []segment // ascending by start; the first starts at the empty key
	fingerprint string
}

// segment is a piece of the key space with one owner; it ends where the next
// one starts, and the last one never ends.
type segment struct {
	start []byte
	line  *line
}

// line is a Route with its shards resolved.
type line struct {
	key    []byte
	shards []*Shard
	hash   bool
}

func (l *line) owner(key []byte) *Shard {
	if len(l.shards) == 1 {
		return l.shards[0]
	}
	return l.shards[spread(key, len(l.shards))]
}

// NewTable builds the table of routes over shards. Every fault is reported, all
// at once (errors.Join): shards without a name, below number 0, or with the same name or number,
// routes that begin at the same key, that name an unknown shard, none, or (plain)
// several, a hash list that names a shard twice, and a table without a line for
// the empty key, which would leave the first keys without a home. Routes may come
// in any order. Neither slice is kept.
func NewTable(routes []Route, shards []*Shard) (*Table, error) {
	t := &Table{shards: slices.Clone(shards), routes: cloneRoutes(routes)}
	slices.SortStableFunc(t.shards, func(a, b *Shard) int { return a.Number - b.Number })
	slices.SortStableFunc(t.routes, func(a, b Route) int { return bytes.Compare(a.Key, b.Key) })
	names, faults := nameShards(t.shards)
	lines, more := resolve(t.routes, names)
	if err := errors.Join(append(faults, more...)...); err != nil {
		return nil, err
	}
	t.segments = cut(lines)
	t.fingerprint = fingerprint(t.routes, t.shards)
	return t, nil
}

func cloneRoutes(routes []Route) []Route {
	out := make([]Route, len(routes))
	for i, r := range routes {
		out[i] = Route{Key: bytes.Clone(r.Key), Shards: slices.Clone(r.Shards), Hash: r.Hash}
	}
	return out
}

// nameShards indexes shards, sorted by number, by their names.
func nameShards(shards []*Shard) (map[string]*Shard, []error) {
	var faults []error
	if len(shards) == 0 {
		faults = append(faults, errors.New("routes: there is no shard"))
	}
	names := make(map[string]*Shard, len(shards))
	for i, s := range shards {
		switch {
		case s.Number < 0:
			faults = append(faults, fmt.Errorf("%v can't hold keys: its number is %d", s, s.Number))
		case s.Name == "":
			faults = append(faults, fmt.Errorf("shard %d has no name", s.Number))
		case names[s.Name] != nil:
			faults = append(faults, fmt.Errorf("shards %d and %d are both called %q", names[s.Name].Number, s.Number, s.Name))
		}
		if i > 0 && shards[i-1].Number == s.Number {
			faults = append(faults, fmt.Errorf("shards %q and %q both have number %d", shards[i-1].Name, s.Name, s.Number))
		}
		names[s.Name] = s
	}
	return names, faults
}

// resolve turns routes, sorted by key, into lines.
func resolve(routes []Route, names map[string]*Shard) ([]*line, []error) {
	var faults []error
	if len(routes) == 0 || len(routes[0].Key) != 0 {
		faults = append(faults, errors.New(`routes: no line for "", so the first keys belong to no shard; add "" = "NAME"`))
	}
	lines := make([]*line, len(routes))
	for i, r := range routes {
		if i > 0 && bytes.Equal(routes[i-1].Key, r.Key) {
			faults = append(faults, fmt.Errorf("route %q: two lines begin at this key", r.Key))
		}
		if len(r.Shards) == 0 {
			faults = append(faults, fmt.Errorf("route %q: names no shard", r.Key))
		}
		if !r.Hash && len(r.Shards) > 1 {
			faults = append(faults, fmt.Errorf("route %q: a plain line names one shard, not %d", r.Key, len(r.Shards)))
		}
		lines[i] = &line{key: r.Key, hash: r.Hash}
		for j, name := range r.Shards {
			s := names[name]
			if s == nil {
				faults = append(faults, fmt.Errorf("route %q: there is no shard %q", r.Key, name))
			}
			if slices.Contains(r.Shards[:j], name) {
				faults = append(faults, fmt.Errorf("route %q: names shard %q twice", r.Key, name))
			}
			lines[i].shards = append(lines[i].shards, s)
		}
	}
	return lines, faults
}

// cut finds the segments of lines, which are sorted by key. Between two
// neighbouring boundaries (where a line begins or a hash prefix ends) the owner
// cannot change, so one look per boundary is enough. open is the stack of lines
// that the rule could still choose: prefixes nest, so an ended one is always on
// top; the line for the empty key never ends, so the stack is never empty.
func cut(lines []*line) []segment {
	var bounds [][]byte
	starts := make(map[string]*line, len(lines))
	for _, l := range lines {
		bounds = append(bounds, l.key)
		starts[string(l.key)] = l
		if end := PrefixEnd(l.key); l.hash && end != nil {
			bounds = append(bounds, end)
		}
	}
	slices.SortFunc(bounds, bytes.Compare)
	var segments []segment
	var open []*line
	for _, b := range slices.CompactFunc(bounds, bytes.Equal) {
		for len(open) > 0 && open[len(open)-1].hash && !bytes.HasPrefix(b, open[len(open)-1].key) {
			open = open[:len(open)-1]
		}
		if l := starts[string(b)]; l != nil {
			open = append(open, l)
		}
		top := open[len(open)-1]
		if n := len(segments); n == 0 || segments[n-1].line != top {
			segments = append(segments, segment{start: b, line: top})
		}
	}
	return segments
}

// PrefixEnd is the first key after every key that begins with prefix, or nil if
// there is none (the prefix is empty or all 0xff).
func PrefixEnd(prefix []byte) []byte {
	for i := len(prefix) - 1; i >= 0; i-- {
		if prefix[i] < 0xff {
			end := bytes.Clone(prefix[:i+1])
			end[i]++
			return end
		}
	}
	return nil
}

// Shards are the shards of the table, by number, routed to or not. The slice is
// the caller's.
func (t *Table) Shards() []*Shard { return slices.Clone(t.shards) }

// Lookup gives the shard that holds key. It allocates nothing.
func (t *Table) Lookup(key []byte) *Shard {
	return t.segments[t.find(key)].line.owner(key)
}

// find is the index of the segment that key lies in.
func (t *Table) find(key []byte) int {
	return sort.Search(len(t.segments), func(i int) bool {
		return bytes.Compare(t.segments[i].start, key) > 0
	}) - 1
}

// Fingerprint is 64 hex digits (SHA-256) over the routes, the shard names in the
// order of their numbers and the name of the hash function. Tables with the same
// fingerprint put every key on the same shard.
func (t *Table) Fingerprint() string { return t.fingerprint }

// Describe tells a person which keys go where, one line per stretch of keys, in
// key order.
func (t *Table) Describe() []string {
	out := make([]string, len(t.segments))
	for i, s := range t.segments {
		span := fmt.Sprintf("from %q on", s.start)
		if i+1 < len(t.segments) {
			span = fmt.Sprintf("from %q to before %q", s.start, t.segments[i+1].start)
		}
		if !s.line.hash {
			out[i] = fmt.Sprintf("%s: shard %q", span, s.line.shards[0].Name)
			continue
		}
		names := make([]string, len(s.line.shards))
		for j, sh := range s.line.shards {
			names[j] = fmt.Sprintf("%q", sh.Name)
		}
		out[i] = fmt.Sprintf("%s: spread by hash over shards %s", span, strings.Join(names, ", "))
	}
	return out
}
