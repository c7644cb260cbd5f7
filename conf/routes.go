package conf

import (
	"bytes"
	"encoding/hex"
	"fmt"
	"slices"
	"strings"
)

// hexPrefix marks a key of [routes] whose bytes are written in hexadecimal.
const hexPrefix = "hex:"

// line is a line of [routes] and where it stands.
type line struct {
	Route
	node *node
}

// routes reads [routes]. It runs where the table stands in the file, so the names of
// shards are looked at later, by checkRoutes.
func (s *schema) routes(n *node) {
	if !n.table {
		s.wrong(n, "want a table, have "+describe(n.value), `write it as [routes] with lines below, such as "" = "a"`)
		return
	}
	for _, kid := range n.kids {
		key, ok := s.routeKey(kid)
		r := line{node: kid, Route: Route{Key: key, Line: kid.line}}
		switch v := kid.value.(type) {
		case nil:
			r.Hash = true
			r.Shards = s.hashed(kid)
		case string:
			r.Shards = []string{v}
		default:
			s.wrong(kid, "want the name of a shard, have "+describe(v), `write it in quotes, or { hash = ["a", "b"] }`)
		}
		if ok && r.Shards != nil {
			s.lines = append(s.lines, r)
		} else {
			s.strays = true
		}
	}
}

// routeKey is the key that a line's name spells, in bytes.
func (s *schema) routeKey(n *node) ([]byte, bool) {
	digits, ok := strings.CutPrefix(n.name(), hexPrefix)
	if !ok {
		return []byte(n.name()), true
	}
	key, err := hex.DecodeString(digits)
	if err != nil {
		s.wrong(n, fmt.Sprintf("%q is not an even number of hexadecimal digits", digits),
			fmt.Sprintf("write two for each byte; a key that begins with %q itself is written %s%x…", hexPrefix, hexPrefix, hexPrefix))
	}
	return key, err == nil
}

// hashed is the list of a line { hash = […] }, or nil if something is wrong with it.
func (s *schema) hashed(n *node) (names []string) {
	if key, ok := unquoted(n); ok {
		s.wrong(n, "this is a key with dots, but without quotes", fmt.Sprintf("write %q", key))
		return nil
	}
	s.walk(n, fields{"hash": {read: func(list *node) { names = s.spread(list) }}})
	if len(n.kids) == 0 {
		s.wrong(n, "the table is empty", `write the name of a shard, or { hash = ["a", "b"] }`)
	}
	return names
}

// unquoted reports whether the table n is what became of a key such as a.b = "c",
// which TOML takes for a table a, and is that key.
func unquoted(n *node) (string, bool) {
	path := []string{n.name()}
	for n.table && n.kid("hash") == nil && len(n.kids) > 0 {
		n = n.kids[0]
		path = append(path, n.name())
	}
	_, ok := n.value.(string)
	return strings.Join(path, "."), ok && len(path) > 1
}

// spread reads the shards that keys are spread over: two or more, all different.
func (s *schema) spread(n *node) []string {
	names, ok := s.list(n, `["a", "b", "c"]`)
	if !ok {
		return nil
	}
	for i, name := range names {
		if slices.Contains(names[:i], name) {
			s.wrong(n, fmt.Sprintf("shard %q is in the list twice", name), "name each shard once; keys are spread evenly")
			return nil
		}
	}
	if len(names) < 2 {
		s.wrong(n, fmt.Sprintf("there is nothing to spread over but shard %q", names[0]), fmt.Sprintf("add another one, or write %q instead of the table", names[0]))
		return nil
	}
	return names
}

// checkRoutes sorts the routes and checks that together with the shards they make a
// routing table.
func (s *schema) checkRoutes(root *node) {
	table := root.kid("routes")
	switch {
	case table == nil && len(s.c.Shards) == 1:
		s.c.Routes = []Route{{Key: []byte{}, Shards: []string{s.c.Shards[0].Name}}}
		return
	case table == nil:
		s.wrong(root.missing("routes"), fmt.Sprintf("there are %d shards, and nothing says which keys are on which", len(s.c.Shards)),
			fmt.Sprintf(`add a table [routes] with lines such as "" = %q and "m" = %q`, s.c.Shards[0].Name, s.c.Shards[1].Name))
		return
	case !table.table:
		return
	}
	used := make(map[string]bool)
	for _, l := range s.lines {
		s.checkRoute(l, used)
	}
	s.checkKeys(table)
	for _, l := range s.lines {
		s.c.Routes = append(s.c.Routes, l.Route)
	}
	for i, sh := range s.c.Shards {
		if !used[sh.Name] && !s.strays {
			s.wrong(s.nodes[i], fmt.Sprintf("shard %s is not named by any route", sh.Name), "give it a line in [routes], or take its table out")
		}
	}
}

// checkRoute checks the names of one line, and that its key is not sharder's own.
func (s *schema) checkRoute(l line, used map[string]bool) {
	names := make([]string, len(s.c.Shards))
	for i, sh := range s.c.Shards {
		names[i] = sh.Name
	}
	for _, name := range l.Shards {
		used[name] = true
		if !slices.Contains(names, name) {
			s.strays = true
			s.wrong(l.node, fmt.Sprintf("no shard is called %q", name), choice(name, names, "shards"))
		}
	}
	if (len(names) > 1 || s.c.Order != nil) && len(l.Key) > 0 && l.Key[0] == 0 {
		s.wrong(l.node, "keys that begin with a NUL byte are sharder's own, clients can't name them", "take the line out, or begin the range later")
	}
}

// checkKeys sorts the lines, and checks their keys: one is the start, none is twice.
func (s *schema) checkKeys(table *node) {
	if !slices.ContainsFunc(table.kids, startsAll) {
		s.wrong(table.missing(""), "no line is for the keys below the first one",
			fmt.Sprintf(`add "" = %q; "" is the start of the keyspace`, s.c.Shards[0].Name))
	}
	slices.SortStableFunc(s.lines, func(a, b line) int { return bytes.Compare(a.Key, b.Key) })
	for i := 1; i < len(s.lines); i++ {
		if a, b := s.lines[i-1], s.lines[i]; bytes.Equal(a.Key, b.Key) {
			s.wrong(b.node, fmt.Sprintf("line %d is for the same key", a.Line), "keep one of them")
		}
	}
}

// startsAll reports whether a line of [routes] is for the start of the keyspace.
func startsAll(n *node) bool { return n.name() == "" || n.name() == hexPrefix }
