package conf

import (
	"errors"
	"slices"

	"github.com/BurntSushi/toml"
)

// node is a key of the file with its line and what it holds: a table, or a value
// as the toml library reads it (string, int64, float64, bool, time.Time, []any, or
// []map[string]any for an array of tables). The whole file is a node without a key.
//
// Everything in this package reads nodes instead of decoding into structs, since
// the library stops at the first value it can't take, and we want all of them.
type node struct {
	key   toml.Key
	line  int
	value any
	table bool
	kids  []*node // of a table, in the order of the file
}

// name is the last part of n's key.
func (n *node) name() string { return n.key[len(n.key)-1] }

// kid is the node of the key called name in the table n, or nil.
func (n *node) kid(name string) *node {
	for _, k := range n.kids {
		if k.name() == name {
			return k
		}
	}
	return nil
}

// missing stands for a key that is not in the table n, to report that it should be.
func (n *node) missing(name string) *node {
	return &node{key: append(slices.Clone(n.key), name), line: n.line}
}

// tree reads src, which has no byte order mark, into nodes. The error is a
// toml.ParseError.
func tree(src []byte) (*node, error) {
	var top map[string]toml.Primitive
	md, err := toml.Decode(string(src), &top)
	if err != nil {
		return nil, err
	}
	t := grower{md: md, rank: make(map[string]int)}
	for i, c := range src {
		if c == '\n' {
			t.ends = append(t.ends, i)
		}
	}
	for i, key := range md.Keys() {
		for j := range key { // a table that only its keys imply has no place of its own
			if name := key[:j+1].String(); t.rank[name] == 0 {
				t.rank[name] = i + 1
			}
		}
	}
	root := &node{line: 1, table: true}
	t.grow(root, top)
	return root, nil
}

// grower makes nodes out of what the library has parsed.
type grower struct {
	md   toml.MetaData
	rank map[string]int // key → where it first appears in the file, from 1
	ends []int          // the offsets of the line feeds
}

// lineOf is the line of the byte at offset. The library's own line of a value is
// where the value ends.
func (g *grower) lineOf(offset int) int {
	before, _ := slices.BinarySearch(g.ends, offset)
	return before + 1
}

// probe is handed to the library in place of a real target. It takes any value and
// refuses it: the library's answer to the refusal is the only way to be told the line
// of a key.
type probe struct{ value any }

// errRefused is what every probe answers.
var errRefused = errors.New("refused")

// UnmarshalTOML implements toml.Unmarshaler.
func (p *probe) UnmarshalTOML(value any) error {
	p.value = value
	return errRefused
}

// grow hangs the keys of one table under n, in the order of the file.
func (g *grower) grow(n *node, table map[string]toml.Primitive) {
	for name, primitive := range table {
		kid := n.missing(name)
		var p probe
		var pe toml.ParseError
		if errors.As(g.md.PrimitiveDecode(primitive, &p), &pe) && pe.Position.Line > 0 {
			kid.line = g.lineOf(pe.Position.Start) // else: the library notes the line of a key "" at its table
		}
		if _, kid.table = p.value.(map[string]any); kid.table {
			var inner map[string]toml.Primitive
			_ = g.md.PrimitiveDecode(primitive, &inner) // a table fits
			g.grow(kid, inner)
			kid.settle(pe.Position.Line)
		} else {
			kid.value = p.value
		}
		n.kids = append(n.kids, kid)
	}
	slices.SortFunc(n.kids, func(a, b *node) int { return g.rank[a.key.String()] - g.rank[b.key.String()] })
}

// settle gives a table without a header of its own (known is 0) the line of its
// first key.
func (n *node) settle(known int) {
	if known == 0 && len(n.kids) > 0 {
		n.line = n.kids[0].line
	}
}
