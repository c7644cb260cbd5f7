package conf

import (
	"errors"
	"fmt"
	"os"
	"strings"

	"github.com/BurntSushi/toml"
)

// maxFile bounds a configuration; the parser's recursion and the search for lines grow with it.
const maxFile = 1 << 20

// Load reads and checks the file at path. The error is the one that reading the
// file gave, or [Errors].
func Load(path string) (*Config, error) {
	src, err := os.ReadFile(path)
	if err != nil {
		return nil, err
	}
	return Parse(path, src)
}

// Parse checks the text of a configuration. file becomes Config.File and is what
// the errors begin with; the file system is not touched. The error is [Errors], and
// then there is no Config.
func Parse(file string, src []byte) (*Config, error) {
	r := &report{file: file}
	if len(src) > maxFile {
		r.errs = Errors{{File: file, Line: 1, What: fmt.Sprintf("the file has %d bytes, more than %v", len(src), Size(maxFile)),
			Remedy: "take lines out, or give ranges of [routes] to hash"}}
		return nil, r.err()
	}
	root, err := tree(src)
	if err != nil {
		return nil, Errors{syntax(file, src, err)}
	}
	c := Default()
	c.File = file
	s := schema{report: r, c: c}
	s.walk(root, s.top())
	s.validate(root)
	if err := r.err(); err != nil {
		return nil, err
	}
	return c, nil
}

// syntax makes the library's error one of ours.
func syntax(file string, src []byte, err error) *Error {
	e := &Error{File: file, Line: 1, What: err.Error()}
	var pe toml.ParseError
	if !errors.As(err, &pe) {
		return e
	}
	e.Line, e.What = max(1, pe.Position.Line), pe.Message
	lines := strings.Split(string(src), "\n")
	if e.Line > len(lines) {
		e.Line = len(lines)
	}
	line := strings.TrimSuffix(lines[e.Line-1], "\r")
	col := min(max(0, pe.Position.Col-1), len(line))
	width := min(max(1, pe.Position.Len), len(line)-col+1)
	margin := strings.Map(blank, line[:col]) // tabs stay tabs, so that the caret stands below its place
	e.Excerpt = fmt.Sprintf("    %s\n    %s%s", line, margin, strings.Repeat("^", width))
	return e
}

// blank is a space as wide as c.
func blank(c rune) rune {
	if c == '\t' {
		return c
	}
	return ' '
}
