package kubernetes

import (
	"bufio"
	"bytes"
	"cmp"
	"context"
	"flag"
	"fmt"
	"os"
	"os/exec"
	"path"
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

// tries is how often a hasty test may run until it passes.
const tries = 3

// outcome is what a process said about its tests.
type outcome struct {
	passed  int      // tests, of those with parts the parts
	skipped []string // tests and parts
	failed  []string // tests, without their parts
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
	t.Logf("%d tests passed, their parts counted, and %d were skipped\n%s", o.passed, len(o.skipped), strings.Join(o.notes, "\n"))
}

// inTime runs tests that failed again, and tells whether they pass then. Only hasty ones
// get another chance.
func inTime(t *testing.T, target string, failed []string) bool {
	for _, name := range failed {
		if !isHasty(path.Base(name)) || !again(t, target, name) {
			return false
		}
	}
	return len(failed) > 0
}

// again runs one test of a suite until it passes.
func again(t *testing.T, target, name string) bool {
	suite, test := path.Split(name)
	run := fmt.Sprintf("^TestStorageOfKubernetes$/^%s$/^%s$/^%s$", target, path.Clean(suite), test)
	for range tries - 1 {
		t.Logf("%s failed and runs again", name)
		if child(t, target, run).err == nil {
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
	var passes []string
	parents := map[string]bool{}
	for lines := bufio.NewScanner(bytes.NewReader(out)); lines.Scan(); {
		line := strings.TrimSpace(lines.Text())
		verdict, rest, _ := strings.Cut(line, prefix)
		name, _, _ := strings.Cut(rest, " ")
		switch verdict {
		case "--- PASS":
			passes = append(passes, name)
			parents[path.Dir(name)] = true
		case "--- SKIP":
			o.skipped = append(o.skipped, name)
			parents[path.Dir(name)] = true
		case "--- FAIL":
			if strings.Count(name, "/") == 1 {
				o.failed = append(o.failed, name)
			}
		}
		if file, note, ok := strings.Cut(line, ": "); ok && strings.HasPrefix(file, "kubernetes_test.go:") {
			o.notes = append(o.notes, note)
		}
		if !quiet(line) {
			o.log = append(o.log, lines.Text()+"\n"...)
		}
	}
	for _, name := range passes {
		if !parents[name] {
			o.passed++
		}
	}
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
