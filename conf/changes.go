package conf

import (
	"bytes"
	"fmt"
	"maps"
	"slices"
)

// Change is a key that says something else in a newer text than in an older one.
type Change struct {
	Key      string // dotted, as TOML spells it
	Line     int    // in the newer text; 0 if it is not there any more
	Old, New string // what it says, for people to read; empty where it is not there
}

// Changes compares two texts that Parse accepts, and gives what is different, by key. Order,
// comments and spelling make no difference, but for the order of the tables [shards.NAME], which
// is their number: it is told as a change of the key "shards".
func Changes(older, newer []byte) ([]Change, error) {
	a, err := settings(older)
	if err != nil {
		return nil, err
	}
	b, err := settings(newer)
	if err != nil {
		return nil, err
	}
	keys := maps.Clone(a)
	maps.Copy(keys, b)
	var all []Change
	for _, key := range slices.Sorted(maps.Keys(keys)) {
		if a[key].text != b[key].text {
			all = append(all, Change{Key: key, Line: b[key].line, Old: a[key].text, New: b[key].text})
		}
	}
	return all, nil
}

// setting is a value of a text.
type setting struct {
	line int
	text string
}

// settings are all values of a text, by key.
func settings(src []byte) (map[string]setting, error) {
	root, err := tree(bytes.TrimPrefix(src, []byte("\xef\xbb\xbf")))
	if err != nil {
		return nil, err
	}
	all := map[string]setting{}
	var collect func(n *node)
	collect = func(n *node) {
		for _, kid := range n.kids {
			if kid.table {
				collect(kid)
			} else {
				all[kid.key.String()] = setting{kid.line, fmt.Sprint(kid.value)}
			}
		}
	}
	collect(root)
	if shards := root.kid("shards"); shards != nil {
		var names []string
		for _, kid := range shards.kids {
			names = append(names, kid.name())
		}
		all["shards"] = setting{shards.line, fmt.Sprint(names)}
	}
	return all, nil
}
