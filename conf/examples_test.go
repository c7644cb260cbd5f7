package conf

import (
	"maps"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
)

// option is a line of an example that is commented out.
var option = regexp.MustCompile(`(?m)^# ([a-z_]+ += .*)$`)

func read(t *testing.T, file string) string {
	t.Helper()
	src, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	return string(src)
}

func TestEveryExampleIsAConfiguration(t *testing.T) {
	files, err := filepath.Glob("*.toml")
	if err != nil {
		t.Fatal(err)
	}
	shards := map[string]int{"shards.toml": 3, "external.toml": 3, "hash.toml": 3, "independent.toml": 3, "single.toml": 1, "gateways.toml": 0}
	ordered := map[string]bool{"shards.toml": true, "external.toml": true, "hash.toml": true}
	equal(t, files, slices.Sorted(maps.Keys(shards)))
	for _, file := range files {
		c, err := Load(file)
		if err != nil {
			t.Fatal(err)
		}
		if len(c.Shards) != shards[file] {
			t.Errorf("%s has %d shards, want %d", file, len(c.Shards), shards[file])
		}
		if (c.Order != nil) != ordered[file] {
			t.Errorf("%s has the order %+v", file, c.Order)
		}
	}
}

// holder is the shard of the last range line that is not above key.
func holder(c *Config, key string) (name string) {
	for _, r := range c.Routes {
		if string(r.Key) <= key {
			name = r.Shards[0]
		}
	}
	return name
}

func TestTheFirstExampleSpreadsAppleJuiceAndZebra(t *testing.T) {
	c, err := Load("shards.toml")
	if err != nil {
		t.Fatal(err)
	}
	for key, want := range map[string]string{"apple": "a", "juice": "b", "zebra": "c", "a": "a", "j": "b", "z": "c"} {
		if have := holder(c, key); have != want {
			t.Errorf("%s is on %s, want %s", key, have, want)
		}
	}
	for _, sh := range c.Shards {
		if !sh.Embedded {
			t.Errorf("shard %s is not embedded", sh.Name)
		}
	}
	if !c.Order.Embedded {
		t.Error("the order cluster is not embedded")
	}
}

func TestLinesCommentedOutInTheFirstExampleShowTheDefaults(t *testing.T) {
	src := read(t, "shards.toml")
	all := option.ReplaceAllString(src, "$1")
	if all == src {
		t.Fatal("no line is commented out")
	}
	c, want := parse(t, all), parse(t, src)
	if c.Shards[0].Listen == "" {
		t.Error("listen of shard a is not shown")
	}
	if len(c.Advertise) != 1 || c.Registration.Prefix == "" || c.Namespace == nil {
		t.Error("advertise, the prefix of registrations or namespace is not shown")
	}
	c.Shards[0].Listen = "" // shown by an example: the default has no text
	c.Advertise, c.Registration.Prefix, c.Namespace = nil, "", nil
	for i := range c.Routes {
		c.Routes[i].Line = want.Routes[i].Line
	}
	equal(t, c, want)
}

func TestTheCommentedLinesOfTheExternalExampleWork(t *testing.T) {
	var on []string
	for _, m := range option.FindAllStringSubmatch(read(t, "external.toml"), -1) {
		on = append(on, m[1])
	}
	c := parse(t, "[shards.a]\n"+strings.Join(on, "\n")+"\n[shards.b]\nendpoints = [\"h:1\"]\n[routes]\n\"\" = \"a\"\n\"b\" = \"b\"\n")
	if sh := c.Shards[0]; len(on) != 4 || len(sh.Endpoints) != 3 || sh.TLS.Empty() || sh.Username == "" || sh.PasswordFile == "" {
		t.Errorf("from %q: %+v", on, sh)
	}
}

func TestTheCommentedLinesOfTheSingleExampleWork(t *testing.T) {
	src := strings.Replace(read(t, "single.toml"), "\nendpoints = ", "\n# endpoints = ", 1)
	src = strings.Replace(src, "# insecure_discovery = false", "# insecure_discovery = true", 1) // or the line with tls is a mistake
	all := regexp.MustCompile(`(?m)^# endpoints = .*$`).ReplaceAllString(src, "")
	c := parse(t, option.ReplaceAllString(all, "$1"))
	sh := c.Shards[0]
	if sh.DiscoverySRV == "" || sh.DiscoveryName == "" || !sh.TLS.InsecureSkipVerify || sh.Username == "" {
		t.Errorf("have %+v", sh)
	}
	sh.Upstream.DiscoverySRV, sh.Upstream.DiscoveryName, sh.Upstream.InsecureDiscovery = "", "", false
	equal(t, sh.Upstream, defaultUpstream())
}

func TestEveryKeyIsInAnExample(t *testing.T) {
	src := read(t, "shards.toml") + read(t, "external.toml") + read(t, "gateways.toml") + read(t, "single.toml")
	var check func(path string, f fields)
	check = func(path string, f fields) {
		for name, inner := range f {
			if !regexp.MustCompile(`(?m)(^|[# {,])\[?` + name + `([.\]]| +=)`).MatchString(src) {
				t.Errorf("no example has %s%s", path, name)
			}
			check(path+name+".", inner.fields)
		}
	}
	s := schema{report: &report{}, c: Default()}
	check("", s.top())
}
