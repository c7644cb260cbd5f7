package stages

import (
	"strconv"
	"strings"
)

// LowestVersion is the lower one of two versions; an empty one does not count.
func LowestVersion(a, b string) string {
	switch {
	case a == "":
		return b
	case b == "" || !lower(b, a):
		return a
	}
	return b
}

// lower reports whether version a is before b, number by number. What comes behind a "-"
// does not count.
func lower(a, b string) bool {
	a, _, _ = strings.Cut(a, "-")
	b, _, _ = strings.Cut(b, "-")
	as, bs := strings.Split(a, "."), strings.Split(b, ".")
	for i := range min(len(as), len(bs)) {
		x, _ := strconv.Atoi(as[i])
		y, _ := strconv.Atoi(bs[i])
		if x != y {
			return x < y
		}
	}
	return len(as) < len(bs)
}
