package kubernetes

import (
	"context"
	"testing"

	"k8s.io/apiserver/pkg/features"
	"k8s.io/apiserver/pkg/storage"
	storagetesting "k8s.io/apiserver/pkg/storage/testing"
)

// cacheChecks run on the cache, after the commonChecks.
var cacheChecks = []check{
	{name: "Create", run: func(t *testing.T, open opener) {
		storagetesting.RunTestCreate(context.Background(), t, open(t), notValidated)
	}},
	{name: "List", run: both(features.ListFromCacheSnapshot, func(t *testing.T, open opener, _ bool) {
		s := open(t)
		storagetesting.RunTestList(context.Background(), t, s, s.compact, true, s.lists)
	}), untouched: true},
	{name: "ConsistentList", run: both(features.ListFromCacheSnapshot, func(t *testing.T, open opener, snapshots bool) {
		s := open(t)
		storagetesting.RunTestConsistentList(context.Background(), t, s, s.increase, true, true, snapshots)
	})},
	{name: "ListContinuation", run: uncounted(storagetesting.RunTestListContinuation)},
	{name: "ListPaginationRareObject", run: uncounted(storagetesting.RunTestListPaginationRareObject)},
	{name: "ListContinuationWithFilter", run: uncounted(storagetesting.RunTestListContinuationWithFilter)},
	{name: "Stats", run: both(features.SizeBasedListCostEstimate, func(t *testing.T, open opener, sizes bool) {
		s := open(t)
		storagetesting.RunTestStats(context.Background(), t, s, s.codec, s.transformer, sizes)
	})},
	{name: "WatchDispatchBookmarkEvents", run: func(t *testing.T, open opener) {
		storagetesting.RunTestWatchDispatchBookmarkEvents(context.Background(), t, open(t), true)
	}},
	{name: "OptionalWatchBookmarksWithCorrectResourceVersion", run: func(t *testing.T, open opener) {
		storagetesting.RunTestOptionalWatchBookmarksWithCorrectResourceVersion(context.Background(), t, unhurried{open(t)})
	}},
	{name: "WatchSemantics", run: settled(storagetesting.RunWatchSemantics), untouched: true, hasty: true},
	{name: "WatchSemanticInitialEventsExtended", run: settled(storagetesting.RunWatchSemanticInitialEventsExtended)},
	{name: "WatchListMatchSingle", run: settled(storagetesting.RunWatchListMatchSingle)},
}

// notValidated is for what the bare store's own test looks at: a cache passes writes on.
func notValidated(context.Context, *testing.T, string) {}

// uncounted runs a test that counts requests, which the cache has no part in.
func uncounted(test func(context.Context, *testing.T, storage.Interface, storagetesting.CallsValidation)) func(*testing.T, opener) {
	return func(t *testing.T, open opener) {
		test(context.Background(), t, open(t), func(*testing.T, uint64, uint64) {})
	}
}

// settled runs a test on a cache that has seen what it created.
func settled(test func(context.Context, *testing.T, storage.Interface)) func(*testing.T, opener) {
	return func(t *testing.T, open opener) { test(context.Background(), t, settling{open(t)}) }
}
