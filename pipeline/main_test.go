package pipeline_test

import (
	"context"
	"errors"
	"go/ast"
	"go/parser"
	"go/token"
	"os"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"testing"

	"github.com/sharder/sharder/integration/leaks"
	"github.com/sharder/sharder/pipeline"
	"github.com/sourcegraph/conc/panics"
)

func TestMain(m *testing.M) { leaks.Main(m) }

// Errors that tests compare by identity.
var (
	errSource = errors.New("source broke")
	errSink   = errors.New("sink broke")
	errLeft   = errors.New("the client left")
)

// count sends 1 to n, then returns err.
func count(n int, err error) pipeline.Source[int] {
	return func(ctx context.Context, out chan<- int) error {
		for v := 1; v <= n; v++ {
			if err := pipeline.Emit(ctx, out, v); err != nil {
				return err
			}
		}
		return err
	}
}

// endless sends 1, 2, 3, ... until it is stopped.
func endless(ctx context.Context, out chan<- int) error {
	for v := 1; ; v++ {
		if err := pipeline.Emit(ctx, out, v); err != nil {
			return err
		}
	}
}

// into is a sink that appends every value to got.
func into[T any](got *[]T) pipeline.Sink[T] {
	return func(_ context.Context, in <-chan T) error {
		for v := range in {
			*got = append(*got, v)
		}
		return nil
	}
}

// caught runs f and returns what it panicked with.
func caught(f func()) (v any) {
	defer func() { v = recover() }()
	f()
	return nil
}

// value is what was panicked with on a goroutine other than the caller's, and fails
// the test if it did not arrive as conc hands panics on, once.
func value(t *testing.T, v any) any {
	t.Helper()
	r, ok := v.(*panics.Recovered)
	if !ok {
		t.Fatalf("panic arrived as %T (%v), want *panics.Recovered", v, v)
	}
	return r.Value
}

// sources parses the files of the package, without its tests.
func sources(t *testing.T) map[string]*ast.File {
	t.Helper()
	entries, err := os.ReadDir(".")
	if err != nil {
		t.Fatal(err)
	}
	files := map[string]*ast.File{}
	for _, e := range entries {
		if name := e.Name(); strings.HasSuffix(name, ".go") && !strings.HasSuffix(name, "_test.go") {
			f, err := parser.ParseFile(token.NewFileSet(), name, nil, parser.ParseComments)
			if err != nil {
				t.Fatal(err)
			}
			files[name] = f
		}
	}
	if len(files) == 0 {
		t.Fatal("no files found")
	}
	return files
}

func TestThePackageImportsStdAndConcOnly(t *testing.T) {
	for name, f := range sources(t) {
		for _, imp := range f.Imports {
			path, err := strconv.Unquote(imp.Path.Value)
			if err != nil {
				t.Fatal(err)
			}
			std := !strings.Contains(strings.Split(path, "/")[0], ".")
			if !std && !strings.HasPrefix(path+"/", "github.com/sourcegraph/conc/") {
				t.Errorf("%s imports %s: the pipeline is usable without anything but std and conc", name, path)
			}
		}
	}
}

func TestEveryGoroutineIsOneOfConc(t *testing.T) {
	for name, f := range sources(t) {
		ast.Inspect(f, func(n ast.Node) bool {
			if _, ok := n.(*ast.GoStmt); ok {
				t.Errorf("%s has a go statement: nobody carries its panics or waits for it", name)
			}
			return true
		})
	}
}

// What doc.go promises, it proves by naming a test, a benchmark or an example.
func TestEveryProofThatTheDocumentationNamesExists(t *testing.T) {
	tests := map[string]bool{}
	files, err := filepath.Glob("*_test.go")
	if err != nil {
		t.Fatal(err)
	}
	for _, name := range files {
		f, err := parser.ParseFile(token.NewFileSet(), name, nil, 0)
		if err != nil {
			t.Fatal(err)
		}
		for _, d := range f.Decls {
			if fn, ok := d.(*ast.FuncDecl); ok {
				tests[fn.Name.Name] = true
			}
		}
	}
	named := regexp.MustCompile(`\b(Test|Benchmark|Example_)\w+`).FindAllString(sources(t)["doc.go"].Doc.Text(), -1)
	if len(named) < 10 {
		t.Errorf("doc.go names only %v", named)
	}
	for _, name := range named {
		if !tests[name] {
			t.Errorf("doc.go names %s, which does not exist", name)
		}
	}
}
