package stages

import "testing"

func TestTheLowestVersionIsFoundByItsNumbers(t *testing.T) {
	for _, c := range [][3]string{
		{"", "3.5.9", "3.5.9"}, {"3.5.9", "", "3.5.9"}, {"3.5.9", "3.5.10", "3.5.9"}, {"3.10.0", "3.9.9", "3.9.9"},
		{"3.6", "3.6.0", "3.6"}, {"3.7.0-rc.1", "3.6.1", "3.6.1"}, {"4.0.0", "3.7.1", "3.7.1"},
	} {
		if have := LowestVersion(c[0], c[1]); have != c[2] {
			t.Errorf("of %q and %q: have %q, want %q", c[0], c[1], have, c[2])
		}
	}
}
