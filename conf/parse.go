package conf

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"regexp"
	"strings"

	"github.com/BurntSushi/toml"
)

// What a configuration may measure, in bytes. Some thousand routes fit; a file that is
// something else altogether is found out before the parser is lost in it, whose memory
// grows with the square of how deep a line is nested.
const (
	maxFile = 1 << 20
	maxLine = 4 << 10
)

// bare finds a value that can only have been meant as a string: 10s, 64MiB, 127.0.0.1, a.
var bare = regexp.MustCompile(`^[^"'#]*=\s*(\d+(\.\d+)?\s*[A-Za-z]|\d+\.\d+\.|[A-Za-z/])`)

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
	if e := measure(src); e != nil {
		e.File = file
		return nil, Errors{e}
	}
	src = bytes.TrimPrefix(src, []byte("\xef\xbb\xbf")) // a byte order mark, from some editors
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

// measure is what is wrong with the size of src, or nil.
func measure(src []byte) *Error {
	if len(src) > maxFile {
		return &Error{Line: 1, What: fmt.Sprintf("the file has more than %v", Size(maxFile)),
			Remedy: "is it a configuration? If so, give ranges of [routes] to hash"}
	}
	number := 0
	for line := range bytes.Lines(src) {
		if number++; len(line) > maxLine {
			return &Error{Line: number, What: fmt.Sprintf("the line has more than %v", Size(maxLine)),
				Remedy: "break it; a list may go over many lines"}
		}
	}
	return nil
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
	if bare.MatchString(line) {
		e.Remedy = "put durations, sizes and names in quotes"
	}
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
