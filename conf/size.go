package conf

import (
	"errors"
	"math"
	"strconv"
	"strings"
)

// Size is a number of bytes, never negative. As text it is a number with a unit,
// "64KiB" or "1.5MiB" or "2GiB", or a plain whole number of bytes. A fraction of a
// byte is dropped.
type Size int64

// The units of Size: powers of 1024, as in etcd's own documentation.
const (
	KiB Size = 1 << 10
	MiB Size = 1 << 20
	GiB Size = 1 << 30
)

// units is ordered from large to small: String takes the first that fits.
var units = []struct {
	name string
	size Size
}{{"GiB", GiB}, {"MiB", MiB}, {"KiB", KiB}}

// The reasons for which a text is no size; they go on after the text.
var (
	errSize     = errors.New("is not a size")
	errSizeUnit = errors.New("is in a unit that is not used here (KiB, MiB and GiB are)")
	errSizeBig  = errors.New("is larger than any size can be")
)

// String is the text of s in the largest unit that says it exactly with at most
// two decimals; UnmarshalText takes it back to s.
func (s Size) String() string {
	for _, u := range units {
		if s < u.size {
			continue
		}
		if whole, rest := s/u.size, s%u.size; rest*100%u.size == 0 {
			text := strconv.FormatInt(int64(whole), 10)
			if rest != 0 {
				text += strings.TrimPrefix(strconv.FormatFloat(float64(rest)/float64(u.size), 'f', -1, 64), "0")
			}
			return text + u.name
		}
	}
	return strconv.FormatInt(int64(s), 10)
}

// MarshalText is String, for encoders.
func (s Size) MarshalText() ([]byte, error) { return []byte(s.String()), nil }

// UnmarshalText sets s to the size that text says. On an error s is unchanged, and
// the error's text is one that can follow the value.
func (s *Size) UnmarshalText(text []byte) error {
	number, unit := strings.TrimSpace(string(text)), Size(1)
	for _, u := range units {
		if n, ok := strings.CutSuffix(number, u.name); ok {
			number, unit = strings.TrimRight(n, " "), u.size
			break
		}
	}
	whole, fraction, point := strings.Cut(number, ".")
	if rest := strings.TrimLeft(number, "0123456789."); rest != "" && whole != "" && rest != number {
		return errSizeUnit
	}
	if !digits(whole) || point && !digits(fraction) || point && unit == 1 {
		return errSize
	}
	n, err := strconv.ParseInt(whole, 10, 64)
	if err != nil || n > math.MaxInt64/int64(unit) {
		return errSizeBig
	}
	part, _ := strconv.ParseFloat("0."+fraction+"0", 64)      // digits only, so it is a number below 1
	*s = Size(n)*unit + min(Size(part*float64(unit)), unit-1) // the parser may round 0.999… up to 1
	return nil
}

// digits reports whether text is one decimal digit or more and nothing else.
func digits(text string) bool {
	return text != "" && strings.Trim(text, "0123456789") == ""
}
