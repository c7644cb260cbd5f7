package kubernetes

import (
	"context"
	"slices"
	"testing"

	"k8s.io/apiserver/pkg/storage"
	etcdfeature "k8s.io/apiserver/pkg/storage/feature"
	utilfeature "k8s.io/apiserver/pkg/util/feature"
	"k8s.io/component-base/featuregate"
	featuregatetesting "k8s.io/component-base/featuregate/testing"
)

// check is one function of the suite, called the way that apiserver's own tests of the
// etcd3 store and of the cache call it.
type check struct {
	name string
	run  func(t *testing.T, open opener)

	// untouched is for tests in which revisions are written down as numbers: that of
	// the first write is 2, and 1 is not compacted. Each subject has a target of its own.
	untouched bool

	// hasty is for tests that wait no longer than 150 milliseconds for the first event
	// of a watch, which they cause as it begins. If the write is there before the watch is, it
	// may take 100, a period of the loop by which etcd serves watches that begin in the past,
	// and over sharder on a busy machine more. And for those that change a key as a watch of it begins:
	// etcd 3.7.3 notes that a watch wants previous values after it has begun (serverWatchStream.recvLoop),
	// so an event in between has none, and the watch fails. And for one that has Kubernetes' cache close a
	// watch: it delivers what it has queued only to a goroutine that ran before (cacheWatcher.sendWatchCacheEvent).
	// Parts that fail may run again.
	hasty bool
}

// isHasty tells whether a test is one of those.
func isHasty(name string) bool {
	return slices.ContainsFunc(slices.Concat(commonChecks, storeChecks, cacheChecks), func(c check) bool { return c.name == name && c.hasty })
}

// opener opens a subject of one kind on one target.
type opener func(t *testing.T, opts ...option) *subject

// plain runs a test that needs nothing but a store.
func plain(test func(context.Context, *testing.T, storage.Interface), opts ...option) func(*testing.T, opener) {
	return func(t *testing.T, open opener) { test(context.Background(), t, open(t, opts...)) }
}

// gate sets a feature gate of apiserver for the rest of the test.
func gate(t *testing.T, feature featuregate.Feature, enabled bool) {
	t.Helper()
	featuregatetesting.SetFeatureGateDuringTest(t, utilfeature.DefaultFeatureGate, feature, enabled)
}

// freshSupport forgets what apiserver found out about the target.
func freshSupport(t *testing.T) {
	t.Helper()
	before := etcdfeature.DefaultFeatureSupportChecker
	etcdfeature.DefaultFeatureSupportChecker = etcdfeature.NewDefaultFeatureSupportChecker()
	t.Cleanup(func() { etcdfeature.DefaultFeatureSupportChecker = before })
}

// both runs a test with a feature gate off and on.
func both(feature featuregate.Feature, run func(t *testing.T, open opener, enabled bool)) func(*testing.T, opener) {
	return func(t *testing.T, open opener) {
		for _, enabled := range []bool{false, true} {
			t.Run(string(feature)+map[bool]string{false: "Off", true: "On"}[enabled], func(t *testing.T) {
				gate(t, feature, enabled)
				run(t, open, enabled)
			})
		}
	}
}
