package conf

import (
	"math"
	"testing"
)

func TestSizesReadAsTheyAreMeant(t *testing.T) {
	for text, want := range map[string]Size{
		"0": 0, "1": 1, "4096": 4096, "64KiB": 65536, "64 KiB": 65536, "1.5MiB": 1572864, "2GiB": 2 << 30,
		"0.5KiB": 512, "1.1KiB": 1126, "8388607GiB": 8388607 << 30, "4611686018427387904": 1 << 62,
		"8589934591GiB": math.MaxInt64 - (1<<30 - 1), "9223372036854775807": math.MaxInt64,
		"8589934591.99999999999999999999999999GiB": math.MaxInt64, "8589934591.75GiB": math.MaxInt64 - (1<<28 - 1),
	} {
		var s Size
		if err := s.UnmarshalText([]byte(text)); err != nil || s != want {
			t.Errorf("%q: have %d, %v, want %d", text, s, err, want)
		}
	}
}

func TestWhatIsNoSizeIsRefusedAndChangesNothing(t *testing.T) {
	for text, want := range map[string]error{
		"": errSize, " ": errSize, "KiB": errSize, "x": errSize, "-1": errSize, "+1": errSize, "1.": errSize, ".5MiB": errSize,
		"1.5": errSize, "1.2.3MiB": errSize, "1e3": errSizeUnit, "0x10": errSizeUnit, "64KB": errSizeUnit, "64K": errSizeUnit,
		"1TiB": errSizeUnit, "1MiBKiB": errSizeUnit, "9223372036854775808": errSizeBig, "8589934592GiB": errSizeBig,
		"9999999999999999999999GiB": errSizeBig,
	} {
		s := Size(7)
		if err := s.UnmarshalText([]byte(text)); err != want || s != 7 {
			t.Errorf("%q: have %d, %v, want %v", text, s, err, want)
		}
	}
}

func TestSizesPrintInTheLargestUnitThatIsExact(t *testing.T) {
	for size, want := range map[Size]string{
		0: "0", 1: "1", 1023: "1023", 1024: "1KiB", 1025: "1025", 1536: "1.5KiB", 1572864: "1.5MiB", 4 << 20: "4MiB",
		4<<20 + 1: "4194305", 1280 << 20: "1.25GiB", -5: "-5", math.MaxInt64: "9223372036854775807",
	} {
		if have := size.String(); have != want {
			t.Errorf("%d: have %s, want %s", int64(size), have, want)
		}
	}
}

// FuzzSizesSurviveTheirText checks that what String and MarshalText write is read back as the same size.
func FuzzSizesSurviveTheirText(f *testing.F) {
	for _, n := range []int64{0, 1, 1024, 1536, 1572864, 1<<30 + 1<<28, math.MaxInt64, math.MaxInt64 - 1<<28 + 1, 1126} {
		f.Add(n)
	}
	f.Fuzz(func(t *testing.T, n int64) {
		if n < 0 {
			return // no size
		}
		text, err := Size(n).MarshalText()
		if err != nil {
			t.Fatal(err)
		}
		var back Size
		if err := back.UnmarshalText(text); err != nil || int64(back) != n {
			t.Errorf("%d is written %s, which is read as %d, %v", n, text, int64(back), err)
		}
	})
}
