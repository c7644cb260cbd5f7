package namespace

import (
	"bytes"
	"testing"
)

// in tells whether etcd has a key in a range: no end is the one key, "\x00" all from there.
func in(key, from, end []byte) bool {
	switch {
	case len(end) == 0:
		return bytes.Equal(key, from)
	case len(end) == 1 && end[0] == 0:
		return bytes.Compare(key, from) >= 0
	}
	return bytes.Compare(key, from) >= 0 && bytes.Compare(key, end) < 0
}

func FuzzARangeInANamespaceHoldsWhatItHoldsOutsideAndNothingElse(f *testing.F) {
	f.Add([]byte("p/"), []byte("a"), []byte("b"), []byte("a1"))
	f.Add([]byte("p/"), []byte("a"), []byte{0}, []byte("p0"))
	f.Add([]byte("a\xff"), []byte("a"), []byte{0}, []byte("b"))
	f.Add([]byte("\xff\xff"), []byte{0}, []byte{0}, []byte("\xff\xff\xff"))
	f.Add([]byte("p"), []byte{0}, []byte{0}, []byte("p"))
	f.Add([]byte("p"), []byte("b"), []byte("a"), []byte("pb"))
	f.Fuzz(func(t *testing.T, prefix, from, end, key []byte) {
		if len(prefix) == 0 || len(from) == 0 {
			t.Skip()
		}
		n := New(prefix)
		below, belowEnd := n.Key(from), n.End(end)
		if len(key) > 0 {
			full := append(bytes.Clone(prefix), key...)
			if in(key, from, end) != in(full, below, belowEnd) {
				t.Errorf("%q in [%q, %q) is %v; behind %q, in [%q, %q), it is not", key, from, end, in(key, from, end), prefix, below, belowEnd)
			}
			if own, ok := n.within(full); !ok || !bytes.Equal(own, key) {
				t.Errorf("%q behind %q comes back as %q, %v", key, prefix, own, ok)
			}
		}
		// The same bytes as a key of anybody's.
		inside := len(key) > len(prefix) && bytes.HasPrefix(key, prefix)
		if in(key, below, belowEnd) && !inside {
			t.Errorf("[%q, %q) behind %q, which is [%q, %q), has %q", from, end, prefix, below, belowEnd, key)
		}
		if _, ok := n.within(key); ok != inside {
			t.Errorf("%q is taken for a key behind %q: %v", key, prefix, ok)
		}
	})
}

func TestTheEndOfAllKeysIsTheEndOfTheNamespace(t *testing.T) {
	for prefix, want := range map[string]string{
		"p/": "p0", "p": "q", "a\xff": "b", "a\xff\xff": "b", "\xff": "\x00", "\xff\xff": "\x00", "\xff\xfe": "\xff\xff",
	} {
		if got := New([]byte(prefix)).End([]byte{0}); string(got) != want {
			t.Errorf("behind %q it is %q, want %q", prefix, got, want)
		}
	}
}

func TestEmptyKeysAndEndsStayEmpty(t *testing.T) {
	n := New([]byte("p/"))
	if n.Key(nil) != nil || n.Key([]byte{}) != nil || n.End(nil) != nil || n.End([]byte{}) != nil {
		t.Error("what was empty is not")
	}
	if _, ok := n.within([]byte("p/")); ok {
		t.Error("the prefix itself is taken for a key of the namespace")
	}
}
