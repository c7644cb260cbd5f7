package script

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
)

// Script is one file.
type Script struct {
	Name       string
	Statements []*Statement
	OneShard   bool   // not to be run against several shards
	Order      bool   // not to be run against several shards without an order
	Apart      string // why revisions are not compared on several shards with one order
}

// Statement is one command with what the file says about its reply.
type Statement struct {
	Line   int    // in the file, from 1
	Text   string // as written, for messages
	Words  []Word
	Body   []Indented // the lines below a txn
	Rest   string     // all that follows the second word, unparsed, for raw
	Expect []Line     // nil if nothing was said
	// Differs is the reason why several shards answer otherwise, with the lines they
	// answer; empty if they don't.
	Differs         string
	DiffersExpect   []Line
	DiffersApart    bool // only shards without an order answer otherwise
	DiffersReserved bool // only servers that keep keys for themselves answer otherwise
	SingleShard     bool // revisions are compared on several shards too
	Apart           bool // the script's revisions are apart
}

// Indented is a line below a statement.
type Indented struct {
	Line  int
	Depth int // spaces in front
	Words []Word
}

// ParseFile reads and parses a file.
func ParseFile(path string) (*Script, error) {
	text, err := os.ReadFile(path)
	if err != nil {
		return nil, err
	}
	return Parse(filepath.Base(path), string(text))
}

// parser goes over the lines of a file.
type parser struct {
	script *Script
	last   *Statement // the statement that > lines and indented lines belong to
	single bool
}

// Parse parses a script. Errors name the file and the line.
func Parse(name, text string) (*Script, error) {
	p := &parser{script: &Script{Name: name}}
	for i, line := range strings.Split(text, "\n") {
		if err := p.line(i+1, strings.TrimRight(line, " \t\r")); err != nil {
			return nil, fmt.Errorf("%s:%d: %w", name, i+1, err)
		}
	}
	return p.script, nil
}

// line puts one line where it belongs.
func (p *parser) line(number int, text string) error {
	switch trimmed := strings.TrimSpace(text); {
	case trimmed == "" || strings.HasPrefix(trimmed, "#"):
		return nil
	case strings.HasPrefix(text, ">"):
		return p.expectation(strings.TrimPrefix(text, ">"))
	case text != trimmed && strings.HasPrefix(text, " "):
		return p.body(number, text)
	}
	words, err := splitWords(text)
	if err != nil {
		return err
	}
	switch words[0].Text {
	case "shapes":
		switch {
		case len(words) == 2 && words[1].Text == "one":
			p.script.OneShard = true
		case len(words) == 2 && words[1].Text == "order":
			p.script.Order = true
		default:
			return fmt.Errorf("shapes takes the word one or order")
		}
		return nil
	case "apart":
		if len(words) != 2 {
			return fmt.Errorf("apart takes one quoted reason")
		}
		p.script.Apart = words[1].Text
		return nil
	case "single-shard", "any-shard":
		p.single = words[0].Text == "single-shard"
		return nil
	case "differs":
		return p.differs(words)
	}
	return p.statement(number, text, words)
}

// statement begins a statement.
func (p *parser) statement(number int, text string, words []Word) error {
	if commands[words[0].Text] == nil {
		return fmt.Errorf("no command %q", words[0].Text)
	}
	p.last = &Statement{Line: number, Text: text, Words: words, SingleShard: p.single, Apart: p.script.Apart != ""}
	if parts := strings.SplitN(text, " ", 3); len(parts) == 3 {
		p.last.Rest = parts[2]
	}
	p.script.Statements = append(p.script.Statements, p.last)
	return nil
}

// body adds an indented line to the statement above.
func (p *parser) body(number int, text string) error {
	if p.last == nil || p.last.Words[0].Text != "txn" || p.last.Expect != nil {
		return fmt.Errorf("an indented line belongs to a txn")
	}
	words, err := splitWords(text)
	if err != nil {
		return err
	}
	depth := len(text) - len(strings.TrimLeft(text, " "))
	p.last.Body = append(p.last.Body, Indented{Line: number, Depth: depth, Words: words})
	return nil
}

// expectation adds a line after ">" to the statement above.
func (p *parser) expectation(text string) error {
	if p.last == nil {
		return fmt.Errorf("an expectation without a command")
	}
	words, err := splitWords(text)
	if err != nil {
		return err
	}
	if len(words) == 0 {
		return fmt.Errorf("an empty expectation")
	}
	line := Line{Depth: (len(text) - len(strings.TrimLeft(text, " "))) / 2, Words: words}
	if p.last.Differs != "" {
		p.last.DiffersExpect = append(p.last.DiffersExpect, line)
	} else {
		p.last.Expect = append(p.last.Expect, line)
	}
	return nil
}

// differs says that several shards answer the statement above otherwise.
func (p *parser) differs(words []Word) error {
	kind := ""
	if len(words) == 3 && !words[1].Quoted && (words[1].Text == "apart" || words[1].Text == "reserved") {
		kind = words[1].Text
		words = words[1:]
	}
	switch {
	case p.last == nil || p.last.Expect == nil:
		return fmt.Errorf("differs follows an expectation")
	case len(words) != 2 || words[1].Text == "" || !words[1].Quoted:
		return fmt.Errorf("differs takes one quoted reason")
	case p.last.Differs != "":
		return fmt.Errorf("differs twice")
	}
	p.last.Differs, p.last.DiffersApart, p.last.DiffersReserved = words[1].Text, kind == "apart", kind == "reserved"
	return nil
}

// InNamespace is the script for a server that gives clients a namespace: no key is reserved
// there, whatever stands below.
func (s *Script) InNamespace() *Script {
	in := *s
	in.Statements = slices.Clone(s.Statements)
	for i, st := range in.Statements {
		if st.DiffersReserved {
			same := *st
			same.Differs, same.DiffersExpect = "", nil
			in.Statements[i] = &same
		}
	}
	return &in
}

// differsOn tells whether a server is meant to answer otherwise than etcd.
func (st *Statement) differsOn(shape Shape) bool {
	return st.Differs != "" && (shape == ManyShards || shape == Ordered && !st.DiffersApart)
}
