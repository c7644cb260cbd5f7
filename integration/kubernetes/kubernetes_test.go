package kubernetes

import (
	"os"
	"slices"
	"testing"
)

// suites are the two sets of tests that there are: apiserver runs them on the bare etcd3
// store, and on the cache over it.
var suites = []suite{
	{"store", openStore, slices.Concat(commonChecks, storeChecks)},
	{"cache", openCache, slices.Concat(commonChecks, cacheChecks)},
}

// suite is a set of tests and what they run on.
type suite struct {
	name   string
	open   func(*testing.T, *deployment, ...option) *subject
	checks []check
}

// TestStorageOfKubernetes runs each target in a process of its own, side by side: the
// suite sets feature gates of apiserver, of which a process has one set, and it sleeps a
// lot. The processes get the same -run, so that one test of the suite can be chosen:
//
//	go test -v -run 'TestStorageOfKubernetes/hash/cache/ConsistentList' .
func TestStorageOfKubernetes(t *testing.T) {
	for _, target := range targets {
		switch os.Getenv(targetVariable) {
		case "":
			t.Run(target.name, func(t *testing.T) {
				t.Parallel()
				inProcess(t, target.name)
			})
		case target.name:
			t.Run(target.name, target.run)
		}
	}
}

// run runs every test of every suite on one deployment, and looks at last whether the
// pods were on all of its shards.
func (target target) run(t *testing.T) {
	d := target.start(t)
	tests := 0
	for _, s := range suites {
		tests += len(s.checks)
		t.Run(s.name, func(t *testing.T) {
			for _, c := range s.checks {
				t.Run(c.name, func(t *testing.T) { s.check(t, target, d, c) })
			}
		})
	}
	if d.spread != nil {
		d.spread.verify(t, tests)
	}
}

// check runs one test of the suite.
func (s suite) check(t *testing.T, target target, d *deployment, c check) {
	c.run(t, func(t *testing.T, opts ...option) *subject {
		if c.untouched {
			return s.open(t, target.start(t), opts...)
		}
		return s.open(t, d, opts...)
	})
	if d.spread != nil {
		d.spread.finish(t)
	}
}
