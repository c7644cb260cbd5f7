package order

import (
	"encoding/hex"
	"errors"
	"reflect"
	"strings"
	"testing"
)

// stored are entries and checkpoints as earlier versions have written them. They have to be
// read for ever; docs/order-log.md explains them byte by byte.
var stored = []struct {
	name, bytes string
	want        Entry
}{
	{"genesis, version 1", "0101" + hex.EncodeToString([]byte(`{"deployment":"00c0ffee00000001","fingerprint":"f1","routes":["\"\" = a"],`+
		`"first_revision":100,"shards":[{"name":"a","cluster_id":18446744073709551615,"revision":3,"compacted":2,"internal":[3]}]}`)),
		Entry{Genesis: &Genesis{Deployment: "00c0ffee00000001", Fingerprint: "f1", Routes: []string{`"" = a`}, FirstRevision: 100,
			Shards: []GenesisShard{{Name: "a", ClusterID: 1<<64 - 1, Revision: 3, Compacted: 2, Internal: []int64{3}}}}}},
	{"cover, version 1", "0102" + "00" + "05" + "02" + "ac02", Entry{Cover: []Covered{{0, 5}, {2, 300}}}},
	{"written, version 2", "0208" + "01" + "02" + "00" + "05" + "02" + "ac02", Entry{Cover: []Covered{{0, 5}, {2, 300}}, Written: []int{2}}},
	{"compacted, version 1", "0103" + "ac02", Entry{Compacted: 300}},
}

func TestEntriesOfEarlierVersionsAreRead(t *testing.T) {
	for _, c := range stored {
		b, err := hex.DecodeString(c.bytes)
		if err != nil {
			t.Fatal(err)
		}
		got, err := decodeEntry(b)
		if err != nil || !reflect.DeepEqual(got, c.want) {
			t.Errorf("%s: %+v, %v", c.name, got, err)
		}
	}
}

func TestEntriesAreWrittenAsDescribed(t *testing.T) {
	for _, c := range stored {
		if got := hex.EncodeToString(c.want.encode()); got != c.bytes {
			t.Errorf("%s: is written %s", c.name, got)
		}
	}
}

func TestNewerEntriesAreRefusedWhole(t *testing.T) {
	for name, b := range map[string][]byte{
		"a version above ours":   {entryVersion + 1, kindCover, 0, 5},
		"the largest version":    {255, 0},
		"a kind we don't know":   {entryVersion, 200, 1, 2, 3},
		"a version, and no more": {entryVersion + 1, 0},
	} {
		if _, err := decodeEntry(b); !errors.Is(err, ErrNewer) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func TestDamagedEntriesAreRefused(t *testing.T) {
	for name, b := range map[string][]byte{
		"nothing":                 {},
		"a version alone":         {1},
		"version 0":               {0, kindCover, 0, 5},
		"a cover of nothing":      {1, kindCover},
		"half a pair":             {1, kindCover, 0},
		"a number cut off":        {1, kindCover, 0, 0x80},
		"shards out of order":     {1, kindCover, 2, 5, 0, 5},
		"a shard twice":           {1, kindCover, 2, 5, 2, 6},
		"a shard beyond all":      {1, kindCover, 0xff, 0xff, 0xff, 0xff, 0x7f, 5},
		"a revision beyond all":   {1, kindCover, 0, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x7f},
		"a number that overflows": {1, kindCover, 0, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x7f},
		"compacted at nothing":    {1, kindCompacted},
		"compacted at 0":          {1, kindCompacted, 0},
		"compacted at two":        {1, kindCompacted, 3, 4},
		"genesis without a text":  {1, kindGenesis},
		"genesis of no shards":    append([]byte{1, kindGenesis}, "{}"...),
		"genesis that is no JSON": append([]byte{1, kindGenesis}, "{"...),
	} {
		if e, err := decodeEntry(b); !errors.Is(err, errCorrupt) || errors.Is(err, ErrNewer) {
			t.Errorf("%s: %+v, %v", name, e, err)
		}
	}
}

// FuzzEntry: what can be read is written back and reads the same.
func FuzzEntry(f *testing.F) {
	for _, c := range stored {
		b, _ := hex.DecodeString(c.bytes)
		f.Add(b)
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		e, err := decodeEntry(b)
		if err != nil {
			if !errors.Is(err, ErrNewer) && !errors.Is(err, errCorrupt) {
				t.Fatal(err)
			}
			return
		}
		again, err := decodeEntry(e.encode())
		if err != nil || !reflect.DeepEqual(e, again) {
			t.Fatalf("%+v is written and read as %+v, %v", e, again, err)
		}
		s := &state{}
		if e.Genesis == nil {
			s = began(t, &Genesis{Shards: []GenesisShard{{Revision: 1}, {Revision: 1}}})
		}
		if err := s.replay(3, e); err != nil && !errors.Is(err, errCorrupt) {
			t.Fatal(err)
		}
	})
}

func TestWhatDiffersFromTheLogIsSaid(t *testing.T) {
	g := &Genesis{Fingerprint: "f", Routes: []string{`"" = a`}, Shards: []GenesisShard{{Name: "a"}, {Name: "b"}}}
	for _, c := range []struct {
		names       []string
		fingerprint string
		want        []string
	}{
		{[]string{"a", "b"}, "f", nil},
		{[]string{"b", "a"}, "f", []string{"a, b", "b, a"}},
		{[]string{"a", "b", "c"}, "f", []string{"a, b, c"}},
		{[]string{"a", "b"}, "g", []string{`log:  "" = a`, `file: "" = b`}},
	} {
		got := g.Difference(c.names, c.fingerprint, []string{`"" = b`})
		if (got == "") != (c.want == nil) {
			t.Errorf("%v %s: %q", c.names, c.fingerprint, got)
		}
		for _, w := range c.want {
			if !strings.Contains(got, w) {
				t.Errorf("%v %s: %q does not say %q", c.names, c.fingerprint, got, w)
			}
		}
	}
}
