package kubernetes

import (
	"fmt"
	"go/ast"
	"go/parser"
	"go/token"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

// suitePackage is where the tests of Kubernetes are.
const suitePackage = "k8s.io/apiserver/pkg/storage/testing"

// sources are the files in which the tests of each suite are called.
var sources = map[string][]string{
	"store": {"common_test.go", "storechecks_test.go"},
	"cache": {"common_test.go", "cachechecks_test.go"},
}

// skipped are the tests that do not run, by suite, with the reason.
var skipped = map[string]map[string]string{"store": skippedOnStore, "cache": skippedOnCache}

func TestEveryTestOfKubernetesRunsOrIsSkippedForAReason(t *testing.T) {
	all := exportedTests(t)
	if len(all) < 40 {
		t.Fatalf("%d tests in %s: %q", len(all), suitePackage, all)
	}
	for _, s := range suites {
		called := calledIn(t, sources[s.name])
		var runs []string
		for _, c := range s.checks {
			runs = append(runs, c.name)
		}
		for _, name := range all {
			reason, skip := skipped[s.name][name]
			run := slices.Contains(runs, short(name))
			switch {
			case run == skip || skip && reason == "":
				t.Errorf("%s on the %s: run %v, skipped %v because %q", name, s.name, run, skip, reason)
			case run && !called[name]:
				t.Errorf("%s on the %s: %q does not call it", name, s.name, sources[s.name])
			}
		}
		if len(runs)+len(skipped[s.name]) != len(all) {
			t.Errorf("on the %s %d tests run and %d are skipped, of %d", s.name, len(runs), len(skipped[s.name]), len(all))
		}
	}
}

// short is the name that a test of the suite has here.
func short(name string) string {
	for _, prefix := range []string{"RunOptionalTest", "RunTest", "Run"} {
		if rest, ok := strings.CutPrefix(name, prefix); ok {
			return rest
		}
	}
	return name
}

// exportedTests are the functions of the suite that run a test: exported, not about
// benchmarks, and with a *testing.T or testing.TB among their parameters.
func exportedTests(t *testing.T) (names []string) {
	t.Helper()
	dir, err := exec.Command("go", "list", "-f", "{{.Dir}}", suitePackage).Output()
	if err != nil {
		t.Fatal(err)
	}
	files, err := filepath.Glob(filepath.Join(strings.TrimSpace(string(dir)), "*.go"))
	if err != nil {
		t.Fatal(err)
	}
	for _, path := range files {
		if strings.HasSuffix(path, "_test.go") {
			continue
		}
		for _, decl := range parse(t, path).Decls {
			f, ok := decl.(*ast.FuncDecl)
			if ok && f.Recv == nil && strings.HasPrefix(f.Name.Name, "Run") && takesT(f) {
				names = append(names, f.Name.Name)
			}
		}
	}
	return names
}

// takesT tells whether a function has the T of a test among its parameters.
func takesT(f *ast.FuncDecl) bool {
	return slices.ContainsFunc(f.Type.Params.List, func(p *ast.Field) bool {
		typ := p.Type
		if star, ok := typ.(*ast.StarExpr); ok {
			typ = star.X
		}
		sel, ok := typ.(*ast.SelectorExpr)
		return ok && fmt.Sprint(sel.X) == "testing" && (sel.Sel.Name == "T" || sel.Sel.Name == "TB")
	})
}

// calledIn are the functions of the suite that files name.
func calledIn(t *testing.T, files []string) map[string]bool {
	t.Helper()
	called := map[string]bool{}
	for _, path := range files {
		ast.Inspect(parse(t, path), func(n ast.Node) bool {
			if sel, ok := n.(*ast.SelectorExpr); ok && fmt.Sprint(sel.X) == "storagetesting" {
				called[sel.Sel.Name] = true
			}
			return true
		})
	}
	return called
}

// parse parses a Go file.
func parse(t *testing.T, path string) *ast.File {
	t.Helper()
	f, err := parser.ParseFile(token.NewFileSet(), path, nil, parser.SkipObjectResolution)
	if err != nil {
		t.Fatal(err)
	}
	return f
}

func TestThePageSaysWhatRunsAndWhatIsSkipped(t *testing.T) {
	page, err := os.ReadFile("../../docs/kubernetes.md")
	if err != nil {
		t.Fatal(err)
	}
	for _, s := range suites {
		line := fmt.Sprintf("| %s | %d | %d |", s.name, len(s.checks), len(skipped[s.name]))
		if !strings.Contains(string(page), line) {
			t.Errorf("the page does not say %q", line)
		}
		for name, reason := range skipped[s.name] {
			line := fmt.Sprintf("| `%s` | %s | %s |", name, s.name, reason)
			if !strings.Contains(string(page), line) {
				t.Errorf("the page does not say %q", line)
			}
		}
	}
	for name, reason := range skippedParts {
		line := fmt.Sprintf("| `%s` | %s |", name, reason)
		if !strings.Contains(string(page), line) {
			t.Errorf("the page does not say %q", line)
		}
	}
}
