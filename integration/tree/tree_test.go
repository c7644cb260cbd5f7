package tree

import (
	"os"
	"strings"
	"testing"
	"testing/fstest"

	"github.com/sharder/sharder/integration/harness"
)

// rules are all rules over Go files, each with sources that break it: the test shows
// the rule these first, so that it is known to see something.
var rules = []struct {
	name   string
	rule   func([]*File) []string
	broken map[string]string // what is wrong: a tree in the form "path: source; path: source"
}{
	{"every package has one package comment", PackageDocs, map[string]string{
		"none": "stages/a.go: package stages",
		"two":  "stages/a.go: // Package stages is.\npackage stages; stages/b.go: // Package stages is too.\npackage stages",
	}},
	{"packages stay in their layer", Layering, map[string]string{
		"pipeline imports gRPC":            `pipeline/a.go: package pipeline` + "\n" + `import _ "google.golang.org/grpc"`,
		"pipeline imports stages":          `pipeline/a.go: package pipeline` + "\n" + `import _ "github.com/sharder/sharder/stages"`,
		"watch imports lease":              `stages/watch/a.go: package watch` + "\n" + `import _ "github.com/sharder/sharder/stages/lease"`,
		"lease imports backend":            `stages/lease/a.go: package lease` + "\n" + `import _ "github.com/sharder/sharder/stages/backend"`,
		"backend imports watch":            `stages/backend/a.go: package backend` + "\n" + `import _ "github.com/sharder/sharder/stages/watch"`,
		"order imports metrics":            `stages/order/a.go: package order` + "\n" + `import _ "github.com/sharder/sharder/stages/metrics"`,
		"stages import watch":              `stages/a.go: package stages` + "\n" + `import _ "github.com/sharder/sharder/stages/watch"`,
		"conf imports zap":                 `conf/a.go: package conf` + "\n" + `import _ "go.uber.org/zap"`,
		"conf imports stages":              `conf/a.go: package conf` + "\n" + `import _ "github.com/sharder/sharder/stages"`,
		"cmd imports a test server":        `cmd/sharder/a.go: package main` + "\n" + `import _ "github.com/sharder/sharder/integration/etcdtest"`,
		"the importer imports stages":      `importer/a.go: package importer` + "\n" + `import _ "github.com/sharder/sharder/stages"`,
		"a package that nobody knows":      `novel/a.go: package novel`,
		"a name that only begins the same": `conf/a.go: package conf` + "\n" + `import _ "github.com/BurntSushi/toml-like"`,
	}},
	{"nothing imports a command", NothingImportsCommands, map[string]string{
		"a package": `stages/a.go: package stages` + "\n" + `import _ "github.com/sharder/sharder/cmd/sharder"`,
		"a test":    `stages/a_test.go: package stages` + "\n" + `import _ "github.com/sharder/sharder/cmd/sharder"`,
	}},
	{"goroutines start in pipeline and cmd only", GoStatements, map[string]string{
		"at the top": "stages/a.go: package stages\nfunc f() { go f() }",
		"deep down":  "conf/a.go: package conf\nfunc f() { defer func() { for { if true { go func() {}() } } }() }",
	}},
	{"everything exported is documented", ExportedDocs, map[string]string{
		"func":   "stages/a.go: package stages\nfunc F() {}",
		"method": "stages/a.go: package stages\n// T is.\ntype T[K any] struct{}\nfunc (*T[K]) M() {}",
		"type":   "stages/a.go: package stages\ntype T int",
		"const":  "stages/a.go: package stages\nconst C = 1",
		"var":    "stages/a.go: package stages\nvar (\n\tV int\n)",
		"group":  "stages/a.go: package stages\n// A comment on the group.\ntype (\n\tT int\n\tU int\n)",
	}},
}

// sources makes a tree of files from its short form.
func sources(short string) fstest.MapFS {
	root := fstest.MapFS{}
	for _, file := range strings.Split(short, "; ") {
		name, src, _ := strings.Cut(file, ": ")
		root[name] = &fstest.MapFile{Data: []byte(src + "\n")}
	}
	return root
}

func TestTheTreeKeepsItsRules(t *testing.T) {
	root, err := harness.Root()
	if err != nil {
		t.Fatal(err)
	}
	files, err := Load(os.DirFS(root))
	if err != nil || len(files) < 50 {
		t.Fatalf("%d files: %v", len(files), err)
	}
	for _, r := range rules {
		t.Run(r.name, func(t *testing.T) {
			for _, wrong := range r.rule(files) {
				t.Error(wrong)
			}
		})
	}
}

func TestEveryRuleSeesAViolation(t *testing.T) {
	for _, r := range rules {
		for name, short := range r.broken {
			t.Run(r.name+"/"+name, func(t *testing.T) {
				files, err := Load(sources(short))
				if err != nil {
					t.Fatal(err)
				}
				if len(r.rule(files)) == 0 {
					t.Errorf("not seen: %s", short)
				}
			})
		}
	}
}

func TestTOMLInThePagesIsAConfiguration(t *testing.T) {
	root, err := harness.Root()
	if err != nil {
		t.Fatal(err)
	}
	blocks, wrong, err := TOMLBlocks(os.DirFS(root))
	if err != nil {
		t.Fatal(err)
	}
	if blocks == 0 {
		t.Error("no block found, not in README.md either")
	}
	for _, w := range wrong {
		t.Error(w)
	}
}

func TestWrongTOMLInAPageIsSeen(t *testing.T) {
	for name, block := range map[string]string{
		"syntax":      "listen = [",
		"unknown key": "[shards.a]\nembeded = true",
	} {
		page := "# A page\n\n```toml\n" + block + "\n```\n"
		blocks, wrong, err := TOMLBlocks(fstest.MapFS{"docs/page.md": {Data: []byte(page)}})
		if err != nil || blocks != 1 || len(wrong) != 1 || !strings.HasPrefix(wrong[0], "docs/page.md:4: ") {
			t.Errorf("%s: %d blocks, %q, %v", name, blocks, wrong, err)
		}
	}
}

func TestEveryDependencyIsExplained(t *testing.T) {
	root, err := harness.Root()
	if err != nil {
		t.Fatal(err)
	}
	files, err := Load(os.DirFS(root))
	if err != nil {
		t.Fatal(err)
	}
	wrong, err := Dependencies(os.DirFS(root), files)
	if err != nil {
		t.Fatal(err)
	}
	for _, w := range wrong {
		t.Error(w)
	}
}

func TestADependencyWithoutAReasonAndAReasonWithoutADependencyAreSeen(t *testing.T) {
	root := sources(`a/a.go: package a` + "\n" + `import _ "example.com/used/sub"` + `; b/c/c.go: package c` + "\n" + `import _ "example.com/old"`)
	root["b/go.mod"] = &fstest.MapFile{Data: []byte("module m/b\n")}
	root["go.mod"] = &fstest.MapFile{Data: []byte("module m\n\nrequire (\n\texample.com/used v1.0.0\n\texample.com/old v1.0.0 // indirect\n)\n\ntool example.com/old/cmd\n")}
	files, err := Load(root)
	if err != nil {
		t.Fatal(err)
	}
	for page, want := range map[string]int{
		"| `example.com/used` | x |\n| `example.com/old` | x |\n":                             0,
		"| `example.com/used` | x |\n":                                                        1,
		"| `example.com/used` | x |\n| `example.com/old` | x |\n| `example.com/gone` | x |\n": 1,
		"": 2,
	} {
		root["docs/dependencies.md"] = &fstest.MapFile{Data: []byte(page)}
		if wrong, err := Dependencies(root, files); err != nil || len(wrong) != want {
			t.Errorf("%q: %q, %v, want %d", page, wrong, err, want)
		}
	}
}
