package kubernetes

// skippedOnCache are the tests of the suite that do not run on the cache, and why. All
// run on the bare store. Those of apiserver's cacher package leave out the same ones, but
// for the two that need the inside of the cache.
var skippedOnCache = map[string]string{
	"RunOptionalTestProgressNotify":           "a cache sends bookmarks of its own, no progress notifications",
	"RunTestGetListWithErrorAggregation":      "about values that can't be decoded, which a cache never holds",
	"RunTestGetListWithoutErrorAggregation":   "about values that can't be decoded, which a cache never holds",
	"RunTestWatchWithUnsafeDelete":            "about values that can't be decoded, which a cache never holds",
	"RunTestWatchError":                       "exchanges the transformer, which a cache has not",
	"RunWatchErrorIsBlockingFurtherEvents":    "exchanges the transformer, which a cache has not",
	"RunTestTransformationFailure":            "exchanges the transformer, which a cache has not",
	"RunTestListResourceVersionMatch":         "exchanges the transformer, which a cache has not",
	"RunTestGuaranteedUpdate":                 "exchanges the transformer, which a cache has not",
	"RunTestGuaranteedUpdateChecksStoredData": "exchanges the transformer, which a cache has not",
	"RunTestListInconsistentContinuation":     "apiserver does not run it on the cache: kubernetes issue 109831",
	"RunTestWatchContextCancel":               "apiserver does not run it on the cache: kubernetes issue 109831",
	"RunTestWatchFromZero":                    "compacts the history inside of the cache, which only its own package can",
}

// skippedOnStore are those that do not run on the bare store.
var skippedOnStore = map[string]string{
	"RunTestOptionalWatchBookmarksWithCorrectResourceVersion": "about bookmarks, which only a cache makes",
}

// skippedParts are parts of tests that the suite itself skips.
var skippedParts = map[string]string{
	"cache/List/ListFromCacheSnapshotOff/test_List_with_limit_at_resource_version_0":                    "a cache ignores the limit",
	"cache/List/ListFromCacheSnapshotOff/test_List_with_limit_at_resource_version_0_match=NotOlderThan": "a cache ignores the limit",
	"cache/List/ListFromCacheSnapshotOn/test_List_with_limit_at_resource_version_0":                     "a cache ignores the limit",
	"cache/List/ListFromCacheSnapshotOn/test_List_with_limit_at_resource_version_0_match=NotOlderThan":  "a cache ignores the limit",
}
