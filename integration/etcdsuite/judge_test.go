//go:build unix

package main

import (
	"fmt"
	"io"
	"slices"
	"strings"
	"testing"
)

// lines are what `go test -json` says of tests that end so: name and ending, or name and
// nothing; what a test says goes behind the ending.
func lines(tests ...string) string {
	var b strings.Builder
	for _, test := range tests {
		words := strings.SplitN(test, " ", 3)
		pkg, name, _ := strings.Cut(words[0], ".")
		fmt.Fprintf(&b, `{"Action":"run","Package":"x/%s","Test":"%s"}`+"\n", pkg, name)
		if len(words) > 2 {
			fmt.Fprintf(&b, `{"Action":"output","Package":"x/%s","Test":"%s","Output":"%s"}`+"\n", pkg, name, words[2])
		}
		if len(words) > 1 {
			fmt.Fprintf(&b, `{"Action":"%s","Package":"x/%s","Test":"%s"}`+"\n", words[1], pkg, name)
		}
	}
	return b.String()
}

// packagesEnd are the lines that end the two packages.
func packagesEnd(common, e2e ending) string {
	return fmt.Sprintf(`{"Action":"%s","Package":"x/common"}`+"\n"+`{"Action":"%s","Package":"x/e2e"}`+"\n", common, e2e)
}

var testKnown = known{
	failures: []failure{
		{test: "e2e.TestBoth", on: onBoth, why: "why"},
		{test: "e2e.TestPart/b", on: onSharder, why: "why"},
		{test: "e2e.TestHangs", on: onSharder, why: "why", hangs: true},
	},
	skips: []skip{{"no gofail", onSharder, "why"}},
}

func TestWhatIsNotAsItHasToBeIsFound(t *testing.T) {
	asKnown := []string{"e2e.TestBoth fail", "e2e.TestPart fail", "e2e.TestPart/a pass", "e2e.TestPart/b fail"}
	with := func(more ...string) string { return lines(append(more, asKnown...)...) + packagesEnd(passed, failed) }
	for _, c := range []struct {
		name, said string
		run        string // the pattern
		want       []string
	}{
		{"as known", with("common.TestA pass"), "", nil},
		{"a part of a known one", with("e2e.TestBoth/part fail", "e2e.TestBoth/other pass"), "", nil},
		{"a failure", with("common.TestA fail"), "", []string{"common.TestA: failed"}},
		{"a part", with("common.TestA fail", "common.TestA/x fail"), "", []string{"common.TestA/x: failed"}},
		{"no end", with("common.TestA"), "", []string{"common.TestA: did not end"}},
		{"a known skip", with("common.TestA skip there is no gofail here"), "", nil},
		{"another skip", with("common.TestA skip because"), "", []string{"common.TestA: left itself out, for a reason that is not known"}},
		{"passes", lines("e2e.TestBoth pass", "e2e.TestPart/b fail") + packagesEnd(passed, failed), "", []string{"e2e.TestBoth: passed, and is known to fail: why"}},
		{"did not run", lines("e2e.TestBoth fail") + packagesEnd(passed, failed), "", []string{"e2e.TestPart/b: is known to fail and did not run"}},
		{"was not to run", lines("e2e.TestBoth fail") + packagesEnd(passed, failed), "Both", nil},
		{"left something behind", lines("e2e.TestA pass") + packagesEnd(passed, failed), "A", []string{"e2e: failed, though no test did"}},
		{"a package without end", lines("common.TestA pass") + `{"Action":"pass","Package":"x/common"}`, "A", []string{"e2e: did not end"}},
		{"nothing", packagesEnd(passed, passed), "Typo", []string{": no test ran"}},
	} {
		t.Run(c.name, func(t *testing.T) {
			a, err := read(strings.NewReader(c.said), io.Discard)
			if err != nil {
				t.Fatal(err)
			}
			var got []string
			for _, w := range testKnown.judge("sharder", a, c.run == "") {
				got = append(got, w.String())
			}
			if !slices.Equal(got, c.want) {
				t.Errorf("found %q, want %q", got, c.want)
			}
		})
	}
}

func TestSomethingIsKnownOnSomeProxies(t *testing.T) {
	a, err := read(strings.NewReader(lines("e2e.TestPart/b fail", "e2e.TestC skip no gofail")+packagesEnd(passed, failed)), io.Discard)
	if err != nil {
		t.Fatal(err)
	}
	if found := testKnown.judge("sharder", a, false); len(found) != 0 {
		t.Errorf("on sharder: %v", found)
	}
	if found := testKnown.judge("etcd", a, false); len(found) != 2 {
		t.Errorf("on etcd's own proxy: %v", found)
	}
}

func TestWhatHangsIsNotRunWhereItDoes(t *testing.T) {
	if got := testKnown.hanging("sharder"); got != "^(TestHangs)$" {
		t.Errorf("on sharder %q", got)
	}
	if got := testKnown.hanging("etcd"); got != "" {
		t.Errorf("on etcd's own proxy %q", got)
	}
	a, err := read(strings.NewReader(lines("e2e.TestBoth fail")+packagesEnd(passed, failed)), io.Discard)
	if err != nil {
		t.Fatal(err)
	}
	for _, w := range testKnown.judge("etcd", a, true) {
		if w.name == "e2e.TestHangs" {
			return
		}
	}
	t.Error("on etcd's own proxy nobody misses it")
}

func TestEverythingKnownHasAReasonAndAProxy(t *testing.T) {
	check := func(name string, on []string, why string) {
		strange := func(p string) bool { return !slices.Contains(proxies, p) }
		if name == "" || why == "" || len(on) == 0 || slices.ContainsFunc(on, strange) {
			t.Errorf("%q is known on %q because %q", name, on, why)
		}
	}
	for _, f := range theSuite.failures {
		check(f.test, f.on, f.why)
	}
	for _, s := range theSuite.skips {
		check(s.says, s.on, s.why)
	}
}
