package conf

import (
	"fmt"
	"slices"
	"strings"
)

// Nearest is the name among names that name was most likely meant to be, or empty.
func Nearest(name string, names []string) string {
	if len(name) > maxName {
		return ""
	}
	best, found := len(name)/3+1, ""
	for _, n := range names {
		if d := distance(strings.ToLower(name), n); d <= best && d < len(n) && (found == "" || d < best) {
			best, found = d, n
		}
	}
	return found
}

// distance is the number of letters to insert, delete, replace or swap with their
// neighbour to turn a into b (optimal string alignment).
func distance(a, b string) int {
	s, t := []rune(a), []rune(b)
	var before []int
	row := make([]int, len(t)+1)
	for j := range row {
		row[j] = j
	}
	for i := range s {
		next := make([]int, len(t)+1)
		next[0] = i + 1
		for j := range t {
			next[j+1] = min(row[j+1]+1, next[j]+1, row[j]+differ(s[i], t[j]))
			if i > 0 && j > 0 && s[i] == t[j-1] && s[i-1] == t[j] {
				next[j+1] = min(next[j+1], before[j-1]+1)
			}
		}
		before, row = row, next
	}
	return row[len(t)]
}

// differ is the cost of replacing a by b.
func differ(a, b rune) int {
	if a == b {
		return 0
	}
	return 1
}

// choice is the remedy for a name that isn't one of names: the nearest of them, or
// all of them. what says what they are, in the plural.
func choice(name string, names []string, what string) string {
	if n := Nearest(name, names); n != "" {
		return fmt.Sprintf("did you mean %q?", n)
	}
	names = slices.Sorted(slices.Values(names))
	return fmt.Sprintf("the %s are %s", what, strings.Join(names, ", "))
}
