package conf

import (
	"fmt"
	"slices"
	"strings"
)

// Error is one thing that is wrong with a configuration. Its text is
//
//	file:line: key: what is wrong; remedy
//
// on one line; an error of syntax has no key and mostly no remedy, and shows the
// place on two more lines.
type Error struct {
	File   string // as given to Load or Parse; never empty in the text
	Line   int    // from 1; the nearest line there is for something that is missing
	Key    string // dotted, as TOML spells it; empty for syntax
	What   string // what is wrong
	Remedy string // what to write instead; may be empty
	// Excerpt is the offending line and a second one with carets below the place;
	// only for syntax.
	Excerpt string
}

// Error is the text described at the type.
func (e *Error) Error() string {
	var b strings.Builder
	file := e.File
	if file == "" {
		file = "configuration"
	}
	fmt.Fprintf(&b, "%s:%d: ", file, e.Line)
	if e.Key != "" {
		b.WriteString(e.Key + ": ")
	}
	b.WriteString(e.What)
	if e.Remedy != "" {
		b.WriteString("; " + e.Remedy)
	}
	if e.Excerpt != "" {
		b.WriteString("\n" + e.Excerpt)
	}
	return b.String()
}

// Errors is everything that is wrong with a configuration, ordered by line. It is
// what [Load] and [Parse] return for a text they can't accept; it is never empty.
type Errors []*Error

// Error has the text of each error on lines of its own.
func (e Errors) Error() string {
	texts := make([]string, len(e))
	for i, one := range e {
		texts[i] = one.Error()
	}
	return strings.Join(texts, "\n")
}

// Unwrap lets errors.As reach the single errors.
func (e Errors) Unwrap() []error {
	all := make([]error, len(e))
	for i, one := range e {
		all[i] = one
	}
	return all
}

// report collects errors while a text is read. The zero value with a file is ready.
type report struct {
	file string
	errs Errors
}

// wrong notes what is wrong at n and the remedy.
func (r *report) wrong(n *node, what, remedy string) {
	r.errs = append(r.errs, &Error{File: r.file, Line: n.line, Key: n.key.String(), What: what, Remedy: remedy})
}

// err is all that was noted, by line, or nil. Errors of one line stay in the order
// in which they were found.
func (r *report) err() error {
	if len(r.errs) == 0 {
		return nil
	}
	slices.SortStableFunc(r.errs, func(a, b *Error) int { return a.Line - b.Line })
	return r.errs
}
