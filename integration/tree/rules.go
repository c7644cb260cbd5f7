package tree

import (
	"fmt"
	"go/ast"
	"sort"
	"strconv"
	"strings"
)

// PackageDocs wants exactly one package comment per package, so that there is one
// place to look and nothing is said twice.
func PackageDocs(files []*File) (wrong []string) {
	docs := map[string][]string{}
	for _, f := range files {
		if f.Test {
			continue
		}
		if _, seen := docs[f.Dir]; !seen {
			docs[f.Dir] = nil
		}
		if f.AST.Doc != nil {
			docs[f.Dir] = append(docs[f.Dir], f.Path)
		}
	}
	for dir, paths := range docs {
		if len(paths) != 1 {
			wrong = append(wrong, fmt.Sprintf("package %s has %d package comments, want 1: %s", dir, len(paths), strings.Join(paths, ", ")))
		}
	}
	sort.Strings(wrong)
	return wrong
}

// layer is what the packages under a directory may import: of this module what is
// in own (nil: anything but commands and test code), of others what is in foreign
// (nil: anything). The standard library is always allowed.
type layer struct {
	dir          string
	own, foreign []string
	why          string
}

// layers are the walls of the house. A directory's first match counts.
var layers = []layer{
	{"pipeline", []string{}, []string{"github.com/sourcegraph/conc"}, "pipeline is of use without etcd, gRPC and sharding"},
	{"conf", []string{}, []string{"github.com/BurntSushi/toml"}, "conf is read by anything that wants to know a configuration"},
	{"stages/backend", []string{"pipeline", "stages", "stages/discovery", "stages/socket"}, nil, "a backend knows one cluster and nothing of watches and leases"},
	{"stages/lease", []string{"pipeline", "stages"}, nil, "leases, watches and backends meet in cmd only"},
	{"stages/watch", []string{"pipeline", "stages"}, nil, "leases, watches and backends meet in cmd only"},
	{"stages/order", []string{"pipeline", "stages"}, nil, "the order knows shards by what the chains know of them"},
	{"stages/cache", []string{"pipeline", "stages"}, nil, "a cache knows the shard by its connection, and the chains that it goes around"},
	{"stages/members", []string{"pipeline", "stages"}, nil, "sharders as members know clusters by their connections"},
	{"stages/namespace", []string{}, nil, "a namespace stands between gRPC and any service of etcd's"},
	{"stages/metrics", []string{"pipeline", "stages", "stages/cache", "stages/gateway", "stages/order", "stages/watch"}, nil, "metrics look at the others, and no other at them"},
	{"stages/gateway", []string{"stages/discovery", "stages/socket"}, []string{"github.com/sourcegraph/conc"}, "a gateway passes bytes on and knows nothing of etcd"},
	{"stages/discovery", []string{}, []string{"github.com/sourcegraph/conc"}, "DNS is the same for gateways and backends"},
	{"stages/port", []string{"stages/socket"}, []string{"github.com/sourcegraph/conc", "google.golang.org/grpc/mem"}, "a port knows how connections begin and nothing of what is said on them"},
	{"stages/socket", []string{}, []string{"google.golang.org/grpc/mem"}, "a socket knows nothing of what goes over it"},
	{"importer", []string{"pipeline"}, nil, "an import knows both sides as clients of etcd do"},
	{"stages", []string{"pipeline"}, nil, "the stages are what everything else is made of"},
	{"cmd", []string{"conf", "importer", "pipeline", "stages", "stages/backend", "stages/cache", "stages/discovery", "stages/gateway", "stages/lease", "stages/members", "stages/metrics", "stages/namespace", "stages/order", "stages/port", "stages/watch"}, nil, "commands are no place for test code"},
	{"integration", []string{"conf", "integration", "pipeline", "stages"}, nil, "tests use sharder from outside"},
}

// Layering wants every import of code that is not a test to stay within its layer.
func Layering(files []*File) (wrong []string) {
	for _, f := range files {
		if f.Test {
			continue
		}
		l := layerOf(f.Dir)
		if l == nil {
			wrong = append(wrong, fmt.Sprintf("%s belongs to no layer: say in integration/tree what it may import", f.Path))
			continue
		}
		for _, spec := range f.AST.Imports {
			path, err := strconv.Unquote(spec.Path.Value)
			if err == nil && !l.allows(path) {
				wrong = append(wrong, fmt.Sprintf("%s imports %s: %s", f.at(spec), path, l.why))
			}
		}
	}
	return wrong
}

// layerOf is the layer of a directory, nil if there is none.
func layerOf(dir string) *layer {
	for i, l := range layers {
		if under(dir, l.dir) {
			return &layers[i]
		}
	}
	return nil
}

// allows tells whether a package of the layer may import a path.
func (l *layer) allows(path string) bool {
	if own, ok := strings.CutPrefix(path, Module+"/"); ok {
		for _, allowed := range l.own {
			if own == allowed || allowed == "integration" && under(own, allowed) {
				return true
			}
		}
		return false
	}
	if first, _, _ := strings.Cut(path, "/"); !strings.Contains(first, ".") || l.foreign == nil {
		return true // the standard library has no dot in its first element
	}
	for _, allowed := range l.foreign {
		if under(path, allowed) {
			return true
		}
	}
	return false
}

// NothingImportsCommands wants no import of cmd, by tests neither.
func NothingImportsCommands(files []*File) (wrong []string) {
	for _, f := range files {
		for _, spec := range f.AST.Imports {
			if path, err := strconv.Unquote(spec.Path.Value); err == nil && under(path, Module+"/cmd") {
				wrong = append(wrong, fmt.Sprintf("%s imports the command %s", f.at(spec), path))
			}
		}
	}
	return wrong
}

// GoStatements wants goroutines to be started in pipeline and cmd only, so that each
// has an owner that waits for it. Tests may.
func GoStatements(files []*File) (wrong []string) {
	for _, f := range files {
		if f.Test || under(f.Dir, "pipeline") || under(f.Dir, "cmd") {
			continue
		}
		ast.Inspect(f.AST, func(n ast.Node) bool {
			if g, ok := n.(*ast.GoStmt); ok {
				wrong = append(wrong, f.at(g)+": a go statement outside pipeline and cmd; use a connector of pipeline or a conc.WaitGroup")
			}
			return true
		})
	}
	return wrong
}
