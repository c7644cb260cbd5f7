//go:build unix

package main

import (
	"maps"
	"regexp"
	"slices"
	"strings"
)

// ending is how a test ended, in the words of `go test -json`.
type ending string

const (
	passed  ending = "pass"
	failed  ending = "fail"
	skipped ending = "skip"
	never   ending = "" // it began, and nothing more was heard of it
)

// failure is a test that is known to fail, by its name with the package in front, such as
// common.TestAuthority, with all its parts. on are the proxies it fails on, why is the reason.
// One that hangs instead of failing is not run at all there.
type failure struct {
	test  string
	on    []string
	why   string
	hangs bool
}

// skip is a part of what tests say that leave themselves out, on which proxies, and why they do.
type skip struct {
	says string
	on   []string
	why  string
}

// known is what is known of the suite's tests beforehand.
type known struct {
	failures []failure
	skips    []skip
}

// wrong is a test, or a package, that did not end as it has to.
type wrong struct{ name, what string }

func (w wrong) String() string { return w.name + ": " + w.what }

// judge finds what is wrong with a run on a proxy: tests that failed and are not known to, that
// are known to and did not, that left themselves out for a reason that is not known, or that
// did not end. If everything was to run, a known failure that did not run is wrong, too: the
// list is no longer that of this suite.
func (k known) judge(proxy string, a *account, everything bool) []wrong {
	all := a.broken()
	for _, test := range slices.Sorted(maps.Keys(a.endings)) {
		if what := k.judgeTest(proxy, a, test); what != "" {
			all = append(all, wrong{test, what})
		}
	}
	if everything {
		for _, f := range k.failures {
			if _, ran := a.endings[f.test]; !ran && !(f.hangs && slices.Contains(f.on, proxy)) {
				all = append(all, wrong{f.test, "is known to fail and did not run"})
			}
		}
	}
	return all
}

// judgeTest says what is wrong with one test, nothing if it is as it has to be.
func (k known) judgeTest(proxy string, a *account, test string) string {
	f := k.failure(proxy, test)
	switch end := a.endings[test]; {
	case end == never:
		return "did not end"
	case end == skipped && !k.maySkip(proxy, a.said[test]):
		return "left itself out, for a reason that is not known"
	case end == passed && f != nil && f.test == test:
		return "passed, and is known to fail: " + f.why
	case end == failed && f == nil && !a.onlyThrough(test):
		return "failed"
	}
	return ""
}

// failure finds the known failure that a test, or what it is a part of, is.
func (k known) failure(proxy, test string) *failure {
	for i, f := range k.failures {
		if (test == f.test || strings.HasPrefix(test, f.test+"/")) && slices.Contains(f.on, proxy) {
			return &k.failures[i]
		}
	}
	return nil
}

// hanging is the pattern of the tests that are not run on a proxy, as go test's -skip has it.
func (k known) hanging(proxy string) string {
	names := []string{}
	for _, f := range k.failures {
		if f.hangs && slices.Contains(f.on, proxy) {
			_, name, _ := strings.Cut(f.test, ".")
			names = append(names, regexp.QuoteMeta(name))
		}
	}
	if len(names) == 0 {
		return ""
	}
	return "^(" + strings.Join(names, "|") + ")$"
}

func (k known) maySkip(proxy string, said *strings.Builder) bool {
	return said != nil && slices.ContainsFunc(k.skips, func(s skip) bool {
		return slices.Contains(s.on, proxy) && strings.Contains(said.String(), s.says)
	})
}
