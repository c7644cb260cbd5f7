package harness

import (
	"fmt"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/sharder/sharder/integration/ports"
)

// Conf is a configuration that a test writes for sharder. Its text is what a user
// would write; whatever is not set is left out, so that sharder's defaults apply.
type Conf struct {
	Listen  string   // client address; "" = a free port
	DataDir string   // where embedded shards keep their data; "" = a directory of the test
	Shards  []Shard  // in the order of the file
	Routes  []Route  // in the order of the file
	Top     []string // further lines above the tables
	Order   *Shard   // [order], nil without; its name is not used
}

// Shard is one [shards.NAME] table.
type Shard struct {
	Name      string
	Endpoints []string // none = embedded
	Lines     []string // further lines of the table
}

// Route is one line of [routes].
type Route struct {
	From string // the key the range begins at, as the file spells it
	To   string // a TOML value: "one" becomes a string, {…} is written as it is
}

// Three is the configuration most tests use: three shards, one, two and three,
// whose ranges begin at the empty key, i and r (so a, j and z are on different
// ones), and the prefix /h/ spread over all of them. The endpoints are those of
// the shards; with none, all are embedded.
func Three(endpoints ...[]string) Conf {
	c := Conf{Routes: []Route{
		{"", "one"}, {"/h/", `{ hash = ["one", "two", "three"] }`}, {"i", "two"}, {"r", "three"},
	}}
	for i, name := range []string{"one", "two", "three"} {
		s := Shard{Name: name}
		if i < len(endpoints) {
			s.Endpoints = endpoints[i]
		}
		c.Shards = append(c.Shards, s)
	}
	return c
}

// Single is shape A: one shard that holds everything, embedded if no endpoint is
// given.
func Single(endpoints ...string) Conf {
	return Conf{
		Shards: []Shard{{Name: "only", Endpoints: endpoints}},
		Routes: []Route{{"", "only"}},
	}
}

// Ordered is the configuration with one revision over all shards, kept by an order
// cluster at the endpoints; with none, by an embedded one.
func (c Conf) Ordered(endpoints ...string) Conf {
	c.Order = &Shard{Endpoints: endpoints}
	return c
}

// Under is the configuration in which the routes are, behind each of the prefixes, what they
// are behind none now: for sharders that give clients these namespaces.
func (c Conf) Under(prefixes ...string) Conf {
	routes := []Route{c.Routes[0]}
	for _, prefix := range prefixes {
		for _, r := range c.Routes {
			routes = append(routes, Route{prefix + r.From, r.To})
		}
	}
	c.Routes = routes
	return c
}

// InNamespace is the configuration with a namespace, as the file spells it.
func (c Conf) InNamespace(prefix string) Conf {
	c.Top = append(slices.Clone(c.Top), fmt.Sprintf("namespace = %q", prefix))
	return c
}

// ShardFlags are what an etcd process needs to be a shard below an order, or the order
// cluster: room for what sharder adds to a client's request.
func ShardFlags() []string {
	return []string{"--max-txn-ops=256", "--max-request-bytes=2097152"}
}

// OneShardOf tells on which shard of Three a whole range lies, -1 if it is on several or
// on spread keys. The end is as the API has it.
func OneShardOf(key, end string) int {
	shard := func(key string) int {
		switch {
		case key >= "/h/" && key < "/h0":
			return -1
		case key < "i":
			return 0
		case key < "r":
			return 1
		}
		return 2
	}
	switch {
	case end == "": // one key, wherever it is
		return max(0, shard(key))
	case end == "\x00":
		if key >= "r" {
			return 2
		}
		return -1
	case end <= key:
		return 0
	}
	first := shard(key)
	for _, border := range []string{"/h/", "/h0", "i", "r"} {
		if key < border && end > border && shard(border) != first {
			return -1
		}
	}
	return first
}

// filled is the configuration with every address and directory chosen.
func (c Conf) filled(t testing.TB) Conf {
	t.Helper()
	if c.Listen == "" {
		c.Listen = ports.Of(t)
	}
	if c.DataDir == "" {
		c.DataDir = filepath.Join(t.TempDir(), "data")
	}
	return c
}

// Text is the file's content.
func (c Conf) Text() string {
	var b strings.Builder
	fmt.Fprintf(&b, "listen = [%q]\ndata_dir = %q\n", c.Listen, c.DataDir)
	for _, line := range c.Top {
		fmt.Fprintln(&b, line)
	}
	if c.Order != nil {
		c.Order.text(&b, "order")
	}
	for _, s := range c.Shards {
		s.text(&b, "shards."+s.Name)
	}
	fmt.Fprintln(&b, "\n[routes]")
	for _, r := range c.Routes {
		to := r.To
		if !strings.HasPrefix(to, "{") {
			to = strconv.Quote(to)
		}
		fmt.Fprintf(&b, "%q = %s\n", r.From, to)
	}
	return b.String()
}

// text writes a cluster's table.
func (s Shard) text(b *strings.Builder, table string) {
	fmt.Fprintf(b, "\n[%s]\n", table)
	if len(s.Endpoints) == 0 {
		fmt.Fprintln(b, "embedded = true")
	} else {
		fmt.Fprintf(b, "endpoints = [%s]\n", quoted(s.Endpoints))
	}
	for _, line := range s.Lines {
		fmt.Fprintln(b, line)
	}
}

// quoted is a TOML list's inside.
func quoted(words []string) string {
	q := make([]string, len(words))
	for i, w := range words {
		q[i] = strconv.Quote(w)
	}
	return strings.Join(q, ", ")
}
