package kubernetes

import (
	"bufio"
	"bytes"
	"cmp"
	"context"
	"flag"
	"os"
	"os/exec"
	"path"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"
)

// targetVariable names the target that a process is for.
const targetVariable = "SHARDER_KUBERNETES_TARGET"

// childBound is how long the tests of a target may take: about a minute, most of it
// sleep, on an idle machine.
const childBound = 8 * time.Minute

// tries is how often a part of a hasty test may run until it passes.
const tries = 5

// outcome is what a process said about its tests.
type outcome struct {
	passed  []string // tests, of those with parts the parts, as are the next two
	skipped []string
	failed  []string
	notes   []string // what this package logged about them
	log     []byte   // all that is not about success
	err     error    // nil if it ended well
}

// inProcess runs this test in another process, for one target, and fails if a test was
// skipped that is not on the list, or was not that is.
func inProcess(t *testing.T, target string) {
	run := flag.Lookup("test.run").Value.String()
	o := child(t, target, cmp.Or(run, "^TestStorageOfKubernetes$"))
	if o.err != nil && !inTime(t, target, o.failed) {
		t.Fatalf("%v\n%s", o.err, o.log)
	}
	for _, name := range o.skipped {
		if skippedParts[name] == "" {
			t.Errorf("%s was skipped", name)
		}
	}
	for name := range skippedParts {
		if run == "" && !slices.Contains(o.skipped, name) {
			t.Errorf("%s is said to be skipped, and is not", name)
		}
	}
	t.Logf("%d tests passed, their parts counted, and %d were skipped\n%s", len(o.passed), len(o.skipped), strings.Join(o.notes, "\n"))
}

// inTime runs what failed again, and tells whether it passes then. Only parts of hasty
// tests get another chance.
func inTime(t *testing.T, target string, failed []string) bool {
	for _, name := range failed {
		if elements := strings.Split(name, "/"); len(elements) < 2 || !isHasty(elements[1]) || !again(t, target, elements) {
			return false
		}
	}
	return len(failed) > 0
}

// again runs one part of a test, on its own, until it passes.
func again(t *testing.T, target string, elements []string) bool {
	run := "^TestStorageOfKubernetes$/^" + target + "$"
	for _, e := range elements {
		run += "/^" + regexp.QuoteMeta(e) + "$"
	}
	for range tries - 1 {
		t.Logf("%s failed and runs again", strings.Join(elements, "/"))
		if o := child(t, target, run); o.err == nil && slices.Contains(o.passed, strings.Join(elements, "/")) {
			return true
		}
	}
	return false
}

// child runs tests for a target in another process.
func child(t *testing.T, target, run string) outcome {
	t.Helper()
	exe, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(context.Background(), childBound)
	defer cancel()
	cmd := exec.CommandContext(ctx, exe, "-test.v", "-test.run="+run)
	cmd.Env = append(os.Environ(), targetVariable+"="+target)
	out, err := cmd.CombinedOutput()
	o := read(out, ": "+t.Name()+"/")
	o.err = err
	return o
}

// read takes the output of go test -v apart.
func read(out []byte, prefix string) (o outcome) {
	verdicts := map[string][]string{}
	parents := map[string]bool{}
	for lines := bufio.NewScanner(bytes.NewReader(out)); lines.Scan(); {
		line := strings.TrimSpace(lines.Text())
		if verdict, rest, ok := strings.Cut(line, prefix); ok && strings.HasPrefix(verdict, "--- ") {
			name, _, _ := strings.Cut(rest, " ")
			verdicts[verdict] = append(verdicts[verdict], name)
			parents[path.Dir(name)] = true
		}
		if file, note, ok := strings.Cut(line, ": "); ok && strings.HasPrefix(file, "kubernetes_test.go:") {
			o.notes = append(o.notes, note)
		}
		if !quiet(line) {
			o.log = append(o.log, lines.Text()+"\n"...)
		}
	}
	leaves := func(verdict string) []string {
		return slices.DeleteFunc(verdicts[verdict], func(name string) bool { return parents[name] })
	}
	o.passed, o.skipped, o.failed = leaves("--- PASS"), leaves("--- SKIP"), leaves("--- FAIL")
	return o
}

// quiet tells whether a line says that all is well, or which feature gate was set.
func quiet(line string) bool {
	for _, prefix := range []string{"=== ", "--- PASS", "--- SKIP", "PASS", "feature_gate.go:"} {
		if strings.HasPrefix(line, prefix) {
			return true
		}
	}
	return false
}
