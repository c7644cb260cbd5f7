package conf

import (
	"errors"
	"math"
	"strconv"
	"strings"
)

// Size is a number of bytes. As text it is a number with a unit, "64KiB" or
// "1.5MiB" or "2GiB", or a plain whole number of bytes.
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
}{{"GiB", GiB}, {"MiB", MiB}, {"KiB", KiB}, {"B", 1}}

var (
	errSize     = errors.New(`is not a size; write a number with KiB, MiB or GiB, such as "64KiB" or "1.5MiB"`)
	errSizeUnit = errors.New(`has a unit that is not exact; write KiB, MiB or GiB (powers of 1024)`)
	errSizeBig  = errors.New(`is too large a size; write one below 8589934592GiB`)
	errSizePart = errors.New(`is not a whole number of bytes; write a number that is`)
)

// String is the text of s with the largest unit that says it in at most two decimals.
func (s Size) String() string {
	for _, u := range units {
		if s < u.size || s%(u.size/100+1) != 0 && s%u.size != 0 {
			continue
		}
		if text := strconv.FormatFloat(float64(s)/float64(u.size), 'f', -1, 64) + u.name; len(text) < 10 {
			return text
		}
	}
	return strconv.FormatInt(int64(s), 10)
}

// MarshalText is String, for encoders.
func (s Size) MarshalText() ([]byte, error) { return []byte(s.String()), nil }

// UnmarshalText sets s to the size that text says. On an error s is unchanged; the
// error's text goes on after the value, as in `"64KB" has a unit that…`.
func (s *Size) UnmarshalText(text []byte) error {
	number, unit := string(text), Size(1)
	for _, u := range units {
		if n, ok := strings.CutSuffix(number, u.name); ok {
			number, unit = strings.TrimRight(n, " "), u.size
			break
		}
	}
	if strings.HasSuffix(strings.ToUpper(number), "B") || strings.ContainsAny(number, "KMGkmg") {
		return errSizeUnit
	}
	if strings.Trim(number, "0123456789.") != "" || number == "" {
		return errSize
	}
	f, err := strconv.ParseFloat(number, 64)
	if err != nil {
		return errSize
	}
	if f *= float64(unit); f >= math.MaxInt64 {
		return errSizeBig
	}
	if f != math.Trunc(f) {
		return errSizePart
	}
	*s = Size(f)
	return nil
}
