package conf

import (
	"fmt"
	"slices"
	"strings"
	"time"
)

// The methods in this file make readers of leaf values: each takes the value of a
// node into the place it was made for, or notes what is wrong and leaves the default.

// count reads a whole number from low to high.
func (s *schema) count(to *int, low, high int64) func(*node) {
	return func(n *node) {
		v := int64(*to)
		s.number(&v, low, high)(n)
		*to = int(v)
	}
}

// number is count for numbers that may be large.
func (s *schema) number(to *int64, low, high int64) func(*node) {
	return func(n *node) {
		remedy := fmt.Sprintf("write a whole number from %d to %d, without quotes", low, high)
		v, ok := n.value.(int64)
		switch {
		case !ok:
			s.wrong(n, "want a whole number, have "+describe(n.value), remedy)
		case v < low || v > high:
			s.wrong(n, fmt.Sprintf("%d is out of bounds", v), remedy)
		default:
			*to = v
		}
	}
}

// size reads a size from low to high.
func (s *schema) size(to *Size, low, high Size) func(*node) {
	return func(n *node) {
		remedy := fmt.Sprintf("write a size from %q to %q, such as %q", low, high, *to)
		var v Size
		var err error
		switch value := n.value.(type) {
		case int64:
			v = Size(value)
		case string:
			if err = v.UnmarshalText([]byte(value)); err != nil {
				s.wrong(n, fmt.Sprintf("%q %v", value, err), remedy)
				return
			}
		default:
			s.wrong(n, "want a size, have "+describe(n.value), remedy)
			return
		}
		if v < low || v > high {
			s.wrong(n, strings.TrimPrefix(describe(n.value), "the string ")+" is out of bounds", remedy)
			return
		}
		*to = v
	}
}

// duration reads a duration from low to high.
func (s *schema) duration(to *time.Duration, low, high time.Duration) func(*node) {
	return func(n *node) {
		remedy := fmt.Sprintf("write a number with one of the units ms, s, m and h, such as %q", brief(*to))
		text, ok := n.value.(string)
		if !ok {
			s.wrong(n, "want a duration, have "+describe(n.value), remedy)
			return
		}
		v, err := time.ParseDuration(text)
		switch {
		case err != nil:
			s.wrong(n, fmt.Sprintf("%q is not a duration", text), remedy)
		case v < low || v > high:
			s.wrong(n, fmt.Sprintf("%q is out of bounds", text), fmt.Sprintf("write a duration from %q to %q", brief(low), brief(high)))
		default:
			*to = v
		}
	}
}

// pause reads a duration from low to high, or none at all: never.
func (s *schema) pause(to *time.Duration, low, high time.Duration) func(*node) {
	read := s.duration(to, low, high)
	return func(n *node) {
		text, ok := n.value.(string)
		v, err := time.ParseDuration(text)
		switch {
		case ok && err == nil && v == 0:
			*to = 0
		case ok && err == nil && (v < low || v > high):
			s.wrong(n, fmt.Sprintf("%q is out of bounds", text), fmt.Sprintf(`write a duration from %q to %q, or "0s" for never`, brief(low), brief(high)))
		default:
			read(n)
		}
	}
}

// brief is d without the zeros that time.Duration ends in: 24h, not 24h0m0s.
func brief(d time.Duration) string {
	text := d.String()
	if strings.HasSuffix(text, "m0s") {
		text = strings.TrimSuffix(text, "0s")
	}
	if strings.HasSuffix(text, "h0m") {
		text = strings.TrimSuffix(text, "0m")
	}
	return text
}

// flag reads true or false.
func (s *schema) flag(to *bool) func(*node) {
	return func(n *node) {
		v, ok := n.value.(bool)
		if !ok {
			s.wrong(n, "want true or false, have "+describe(n.value), "write one of them, without quotes")
			return
		}
		*to = v
	}
}

// text reads a string that isn't empty; example says what it is, for the remedy.
func (s *schema) text(to *string, example string) func(*node) {
	return func(n *node) {
		if v, ok := s.str(n, n.value, example); ok {
			*to = v
		}
	}
}

// oneOf reads one of a few words.
func (s *schema) oneOf(to *string, words []string) func(*node) {
	return func(n *node) {
		remedy := fmt.Sprintf("write %q", words[0])
		for i, w := range words[1:] {
			remedy += fmt.Sprintf("%s%q", map[bool]string{true: " or ", false: ", "}[i == len(words)-2], w)
		}
		v, ok := n.value.(string)
		switch {
		case !ok:
			s.wrong(n, "want a string, have "+describe(n.value), remedy)
		case !slices.Contains(words, v):
			s.wrong(n, fmt.Sprintf("%q is not one of the words for this", v), remedy)
		default:
			*to = v
		}
	}
}

// str is value as a string that isn't empty and has no NUL byte (no path and no
// name can have one). Otherwise it notes what is wrong at n.
func (s *schema) str(n *node, value any, example string) (string, bool) {
	v, ok := value.(string)
	switch {
	case !ok:
		s.wrong(n, "want a string, have "+describe(value), "write "+example+", in quotes")
	case v == "":
		s.wrong(n, "the string is empty", "write "+example+", or leave the key out")
	case strings.ContainsRune(v, 0):
		s.wrong(n, fmt.Sprintf("%q has a NUL byte in it", v), "write "+example)
	default:
		return v, true
	}
	return "", false
}

// list is n's value as a list of strings that aren't empty; example is the remedy
// for something else. All that is wrong is noted; what is right is returned even so.
func (s *schema) list(n *node, example string) ([]string, bool) {
	values, ok := n.value.([]any)
	if !ok {
		s.wrong(n, "want a list of strings, have "+describe(n.value), "write it in brackets, such as "+example)
		return nil, false
	}
	if len(values) == 0 {
		s.wrong(n, "the list is empty", "write at least one, such as "+example)
		return nil, false
	}
	all := make([]string, 0, len(values))
	for _, value := range values {
		v, good := value.(string)
		if !good || v == "" {
			s.wrong(n, "want strings in the list, have "+describe(value), "write it such as "+example)
			ok = false
			continue
		}
		all = append(all, v)
	}
	return all, ok
}
