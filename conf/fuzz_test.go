package conf

import (
	"bytes"
	"os"
	"path/filepath"
	"slices"
	"testing"
)

// FuzzParse checks that no text makes Parse panic, that everything it refuses is
// refused with a place, and that everything it accepts obeys the rules others rely on.
func FuzzParse(f *testing.F) {
	for _, pattern := range []string{"*.toml", "testdata/*.toml"} {
		files, err := filepath.Glob(pattern)
		if err != nil {
			f.Fatal(err)
		}
		for _, file := range files {
			src, err := os.ReadFile(file)
			if err != nil {
				f.Fatal(err)
			}
			f.Add(src)
		}
	}
	f.Fuzz(func(t *testing.T, src []byte) {
		c, err := Parse("f.toml", src)
		if err != nil {
			checkErrors(t, err)
			for _, e := range err.(Errors) {
				if e.File != "f.toml" || e.Line > bytes.Count(src, []byte("\n"))+1 {
					t.Errorf("no such place: %v", e)
				}
			}
			return
		}
		checkRules(t, c)
	})
}

// checkRules checks what a Config promises beyond the bounds of numbers.
func checkRules(t *testing.T, c *Config) {
	if len(c.Shards)+len(c.Listen)+len(c.Routes) == 0 && c.Order == nil && len(c.Gateways) > 0 {
		return
	}
	if len(c.Listen) == 0 || len(c.Shards) == 0 || len(c.Routes) == 0 || len(c.Routes[0].Key) != 0 {
		t.Fatalf("something is empty that must not be: %+v", c)
	}
	unused := make(map[string]bool)
	for _, sh := range c.Shards {
		if unused[sh.Name] || sh.Embedded == (len(sh.Endpoints) > 0 || sh.DiscoverySRV != "") || sh.Embedded && c.DataDir == "" {
			t.Errorf("not a shard: %+v", sh)
		}
		unused[sh.Name] = true
	}
	checkOrderRules(t, c)
	for i, r := range c.Routes {
		if r.Hash != (len(r.Shards) > 1) || i > 0 && bytes.Compare(c.Routes[i-1].Key, r.Key) >= 0 {
			t.Errorf("not a line, or not in order: %+v", r)
		}
		for _, name := range r.Shards {
			if !slices.ContainsFunc(c.Shards, func(sh Shard) bool { return sh.Name == name }) {
				t.Errorf("no such shard: %+v", r)
			}
			delete(unused, name)
		}
	}
	if len(unused) != 0 {
		t.Errorf("shards without a route: %v", unused)
	}
}

// checkOrderRules checks what is true of [order] in every Config.
func checkOrderRules(t *testing.T, c *Config) {
	o := c.Order
	if o == nil {
		return
	}
	if o.Name != OrderName || o.Embedded == (len(o.Endpoints) > 0) || o.Embedded && c.DataDir == "" {
		t.Errorf("not an order cluster: %+v", o)
	}
	if o.FirstRevision < 1 || o.FirstRevision > maxRevision || o.CommitInterval < 0 || o.CheckpointEntries < 1 || o.BatchItems < 1 {
		t.Errorf("out of bounds: %+v", o)
	}
	if a := o.AutoCompaction; a.Period < 0 || a.Revisions < 0 || a.Period > 0 && a.Revisions > 0 {
		t.Errorf("not a way to compact: %+v", a)
	}
	for _, r := range c.Routes {
		if len(r.Key) > 0 && r.Key[0] == 0 {
			t.Errorf("a route begins in what is sharder's own: %+v", r)
		}
	}
}
