package stages_test

import (
	"bytes"
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"

	"github.com/sharder/sharder/stages"
)

func bareShards(names ...string) []*stages.Shard {
	out := make([]*stages.Shard, len(names))
	for i, n := range names {
		out[i] = &stages.Shard{Number: i, Name: n}
	}
	return out
}

func plain(key, shard string) stages.Route {
	return stages.Route{Key: []byte(key), Shards: []string{shard}}
}

func hashed(key string, shards ...string) stages.Route {
	return stages.Route{Key: []byte(key), Shards: shards, Hash: true}
}

func mustTable(t testing.TB, routes []stages.Route, shards []*stages.Shard) *stages.Table {
	t.Helper()
	table, err := stages.NewTable(routes, shards)
	if err != nil {
		t.Fatal(err)
	}
	return table
}

// ownerLine is the routing rule, said as simply as possible: of the lines that are
// not above key, without the hash lines whose prefix it lacks, the last.
func ownerLine(routes []stages.Route, key []byte) stages.Route {
	var last *stages.Route
	for i, r := range routes {
		switch {
		case bytes.Compare(r.Key, key) > 0:
		case r.Hash && !bytes.HasPrefix(key, r.Key):
		case last == nil || bytes.Compare(last.Key, r.Key) < 0:
			last = &routes[i]
		}
	}
	return *last
}

func TestAKeyBelongsToTheLastLineThatIsNotAboveIt(t *testing.T) {
	table := mustTable(t, []stages.Route{
		plain("", "a"), plain("/m", "b"), hashed("/p/", "c"), plain("/p/m", "d"), hashed("/p/x/", "e"), plain("/q/s", "f"),
	}, bareShards("a", "b", "c", "d", "e", "f"))
	for key, want := range map[string]string{
		"":         "a",
		"/":        "a",
		"/m":       "b",
		"/o":       "b",
		"/p":       "b", // below the prefix, not in it
		"/p/":      "c",
		"/p/l":     "c",
		"/p/m":     "d", // a plain line inside the prefix takes over
		"/p/w":     "d",
		"/p/x/1":   "e",
		"/p/y":     "d", // behind a hash prefix the line above goes on
		"/p0":      "d", // also behind the prefix it lies in
		"/q":       "d",
		"/q/s":     "f",
		"\xff":     "f",
		"/q/s\x00": "f",
	} {
		if got := table.Lookup([]byte(key)).Name; got != want {
			t.Errorf("%q is on %q, want %q", key, got, want)
		}
	}
}

func TestBehindAHashPrefixTheLineAboveGoesOn(t *testing.T) {
	table := mustTable(t, []stages.Route{plain("", "a"), hashed("/r/p/", "b"), plain("/z", "c")}, bareShards("a", "b", "c"))
	for key, want := range map[string]string{"/r/p": "a", "/r/p/": "b", "/r/p/\xff": "b", "/r/p0": "a", "/y": "a", "/z": "c"} {
		if got := table.Lookup([]byte(key)).Name; got != want {
			t.Errorf("%q is on %q, want %q", key, got, want)
		}
	}
}

// randomRoutes are over a two-letter alphabet with 0xff, so that lines nest, touch and repeat prefixes.
func randomRoutes(rnd *rand.Rand, names []string) []stages.Route {
	routes := []stages.Route{plain("", names[rnd.IntN(len(names))])}
	if rnd.IntN(3) == 0 {
		routes[0] = hashed("", names...)
	}
	seen := map[string]bool{"": true}
	for range rnd.IntN(8) {
		key := randomKey(rnd, 4)
		if seen[key] {
			continue
		}
		seen[key] = true
		if rnd.IntN(2) == 0 {
			routes = append(routes, plain(key, names[rnd.IntN(len(names))]))
			continue
		}
		list := slices.Clone(names)
		rnd.Shuffle(len(list), func(i, j int) { list[i], list[j] = list[j], list[i] })
		routes = append(routes, hashed(key, list[:1+rnd.IntN(len(list))]...))
	}
	rnd.Shuffle(len(routes), func(i, j int) { routes[i], routes[j] = routes[j], routes[i] })
	return routes
}

func randomKey(rnd *rand.Rand, n int) string {
	b := make([]byte, rnd.IntN(n+1))
	for i := range b {
		b[i] = "ab\xff\x00"[rnd.IntN(4)]
	}
	return string(b)
}

// allKeys are all strings of length 1 to n over the alphabet of randomKey. The
// empty one is no key.
func allKeys(n int) []string {
	keys := []string{""}
	for from := 0; n > 0; n-- {
		to := len(keys)
		for _, k := range keys[from:to] {
			for _, c := range []string{"\x00", "a", "b", "\xff"} {
				keys = append(keys, k+c)
			}
		}
		from = to
	}
	keys = keys[1:]
	slices.Sort(keys)
	return keys
}

func TestLookupAndRangeAgreeWithBruteForce(t *testing.T) {
	rnd := rand.New(rand.NewPCG(1, 2))
	names := []string{"a", "b", "c", "d"}
	keys := allKeys(5)
	for i := range 300 {
		routes := randomRoutes(rnd, names)
		table := mustTable(t, routes, bareShards(names...))
		for _, k := range keys {
			line := ownerLine(routes, []byte(k))
			got := table.Lookup([]byte(k)).Name
			if !slices.Contains(line.Shards, got) {
				t.Fatalf("table %d: %q is on %q, its line %q has %v\n%s", i, k, got, line.Key, line.Shards, strings.Join(table.Describe(), "\n"))
			}
		}
		for range 20 {
			checkRange(t, table, keys, []byte(randomKey(rnd, 4)), randomEnd(rnd))
		}
	}
}

func randomEnd(rnd *rand.Rand) []byte {
	switch rnd.IntN(4) {
	case 0:
		return []byte{0}
	case 1:
		return nil
	}
	return []byte(randomKey(rnd, 4))
}

// inRange is etcd's meaning of key and range_end.
func inRange(k string, key, end []byte) bool {
	switch {
	case len(end) == 0:
		return k == string(key)
	case bytes.Equal(end, []byte{0}):
		return k >= string(key)
	}
	return k >= string(key) && k < string(end)
}

// checkRange checks the parts of a range against the owners of keys, one by one.
func checkRange(t testing.TB, table *stages.Table, keys []string, key, end []byte) {
	t.Helper()
	parts := table.Range(key, end)
	byShard := map[*stages.Shard]stages.Part{}
	for i, p := range parts {
		if _, twice := byShard[p.Shard]; twice {
			t.Fatalf("range [%q, %q): shard %q has two parts", key, end, p.Shard.Name)
		}
		byShard[p.Shard] = p
		if i > 0 && bytes.Compare(parts[i-1].Key, p.Key) > 0 {
			t.Fatalf("range [%q, %q): parts out of order", key, end)
		}
	}
	for _, k := range keys {
		owner := table.Lookup([]byte(k))
		p, asked := byShard[owner]
		if inRange(k, key, end) && !(asked && inRange(k, p.Key, p.End)) {
			t.Fatalf("range [%q, %q): %q on %q is in no part: %v", key, end, k, owner.Name, show(parts))
		}
		for _, p := range parts {
			if inRange(k, p.Key, p.End) && !inRange(k, key, end) {
				t.Fatalf("range [%q, %q): part [%q, %q) reaches out of it, to %q", key, end, p.Key, p.End, k)
			}
		}
	}
	if len(parts) == 0 {
		t.Fatalf("range [%q, %q): nobody is asked", key, end)
	}
}

func show(parts []stages.Part) string {
	var out []string
	for _, p := range parts {
		out = append(out, fmt.Sprintf("%s[%q,%q)", p.Shard.Name, p.Key, p.End))
	}
	return strings.Join(out, " ")
}

func TestRangeAsksNoShardThatHoldsNothingOfIt(t *testing.T) {
	table := mustTable(t, threeRoutes, bareShards("a", "b", "c"))
	for _, c := range []struct{ key, end, want string }{
		{"a", "b", `a["a","b")`},
		{"a", "g", `a["a","g")`},
		{"a", "g\x00", `a["a","g") b["g","g\x00")`},
		{"a", "\x00", `a["a","p0") b["g","s") c["p/","\x00")`},
		{"p/", "p0", `a["p/","p0") b["p/","p0") c["p/","p0")`},
		{"q", "t", `b["q","s") c["s","t")`},
		{"z", "a", `c["z","a")`}, // upside down: asked where z would be
		{"z", "z", `c["z","z")`},
		{"a", "", `a["a","")`},
		{"a", "a\x00", `a["a","a\x00")`},
		{"", "g", `a["\x00","g")`}, // the empty key is none
	} {
		if got := show(table.Range([]byte(c.key), []byte(c.end))); got != c.want {
			t.Errorf("[%q, %q): got %s, want %s", c.key, c.end, got, c.want)
		}
	}
	one := []byte("p/key")
	parts := table.Range(one, append(bytes.Clone(one), 0))
	if len(parts) != 1 || parts[0].Shard != table.Lookup(one) {
		t.Errorf("a range of one key asks %s", show(parts))
	}
}

func TestEveryFaultOfATableIsReported(t *testing.T) {
	_, err := stages.NewTable([]stages.Route{
		plain("b", "nowhere"), plain("b", "a"), {Key: []byte("c")}, {Key: []byte("d"), Shards: []string{"a", "b"}}, hashed("e", "a", "a"),
	}, []*stages.Shard{{Number: 0, Name: "a"}, {Number: 0, Name: "b"}, {Number: 1, Name: "a"}, {Number: 2}})
	if err == nil {
		t.Fatal("accepted")
	}
	for _, want := range []string{
		`routes: no line for ""`, `route "b": there is no shard "nowhere"`, `route "b": two lines begin at this key`,
		`route "c": names no shard`, `route "d": a plain line names one shard, not 2`, `route "e": names shard "a" twice`,
		`shards "a" and "b" both have number 0`, `shards 0 and 1 are both called "a"`, `shard 2 has no name`,
	} {
		if !strings.Contains(err.Error(), want) {
			t.Errorf("missing %q in\n%v", want, err)
		}
	}
	if _, err := stages.NewTable(nil, nil); err == nil {
		t.Error("a table of nothing was accepted")
	}
}

func TestFingerprintChangesWithWhateverMovesKeys(t *testing.T) {
	base := []stages.Route{plain("", "a"), hashed("h/", "a", "b")}
	shards := bareShards("a", "b")
	seen := map[string]string{}
	for name, table := range map[string]*stages.Table{
		"base":          mustTable(t, base, shards),
		"another key":   mustTable(t, []stages.Route{plain("", "a"), hashed("i/", "a", "b")}, shards),
		"list order":    mustTable(t, []stages.Route{plain("", "a"), hashed("h/", "b", "a")}, shards),
		"another shard": mustTable(t, []stages.Route{plain("", "b"), hashed("h/", "a", "b")}, shards),
		"plain":         mustTable(t, []stages.Route{plain("", "a"), plain("h/", "a")}, shards),
		"hash of one":   mustTable(t, []stages.Route{plain("", "a"), hashed("h/", "a")}, shards),
		"more shards":   mustTable(t, base, bareShards("a", "b", "c")),
		"renumbered":    mustTable(t, base, bareShards("b", "a")),
	} {
		if other, twice := seen[table.Fingerprint()]; twice {
			t.Errorf("%q has the fingerprint of %q", name, other)
		}
		seen[table.Fingerprint()] = name
	}
	again := mustTable(t, []stages.Route{base[1], base[0]}, []*stages.Shard{shards[1], shards[0]})
	if seen[again.Fingerprint()] != "base" {
		t.Error("the order in which lines are written changed the fingerprint")
	}
	// Shards are stamped with it, so it must not change by accident either.
	const stamped = "4d496480c170ec1b7222af67f015af5153b0c64134ba5f3daa8be5876a3c3ca2"
	if got := again.Fingerprint(); got != stamped {
		t.Errorf("fingerprint is %s, on shards it is %s", got, stamped)
	}
}

func TestDescribeSaysWhichKeysGoWhere(t *testing.T) {
	got := mustTable(t, threeRoutes, bareShards("a", "b", "c")).Describe()
	want := []string{
		`from "" to before "g": shard "a"`,
		`from "g" to before "p/": shard "b"`,
		`from "p/" to before "p0": spread by hash over shards "a", "b", "c"`,
		`from "p0" to before "s": shard "b"`,
		`from "s" on: shard "c"`,
	}
	if !slices.Equal(got, want) {
		t.Errorf("got\n%s", strings.Join(got, "\n"))
	}
}

func TestShardsAreByNumberAndTheCallersOwn(t *testing.T) {
	shards := bareShards("a", "b", "c")
	table := mustTable(t, []stages.Route{plain("", "c")}, []*stages.Shard{shards[2], shards[0], shards[1]})
	got := table.Shards()
	if !slices.Equal(got, shards) {
		t.Errorf("got %v", got)
	}
	got[0] = nil
	if !slices.Equal(table.Shards(), shards) {
		t.Error("writing to the answer changed the table")
	}
}

func FuzzTable(f *testing.F) {
	f.Add(uint64(1), "a", "b")
	f.Add(uint64(2), "a\xff", "\x00")
	f.Add(uint64(3), "", "")
	keys := allKeys(4)
	f.Fuzz(func(t *testing.T, seed uint64, key, end string) {
		rnd := rand.New(rand.NewPCG(seed, 0))
		names := []string{"a", "b", "c"}
		routes := randomRoutes(rnd, names)
		table := mustTable(t, routes, bareShards(names...))
		if got, line := table.Lookup([]byte(key)).Name, ownerLine(routes, []byte(key)); !slices.Contains(line.Shards, got) {
			t.Fatalf("%q is on %q, its line has %v", key, got, line.Shards)
		}
		checkRange(t, table, append(keys, key+"\x00", end+"\x00"), []byte(key), []byte(end))
	})
}

func BenchmarkTableLookup(b *testing.B) {
	for _, n := range []int{1, 10, 1000} {
		routes := []stages.Route{plain("", "a")}
		for i := 1; i < n; i++ {
			routes = append(routes, plain(fmt.Sprintf("/registry/%06d", i), []string{"a", "b"}[i%2]))
		}
		table := mustTable(b, routes, bareShards("a", "b"))
		key := []byte(fmt.Sprintf("/registry/%06d/pods/default/some-pod", n/2))
		b.Run(fmt.Sprintf("%d lines", n), func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				table.Lookup(key)
			}
		})
	}
	table := mustTable(b, []stages.Route{hashed("", "a", "b", "c", "d")}, bareShards("a", "b", "c", "d"))
	key := []byte("/registry/pods/default/some-pod")
	b.Run("hash", func(b *testing.B) {
		b.ReportAllocs()
		for b.Loop() {
			table.Lookup(key)
		}
	})
}
