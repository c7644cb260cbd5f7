package kubernetes

import (
	"context"
	"testing"

	"k8s.io/apiserver/pkg/features"
	"k8s.io/apiserver/pkg/storage/etcd3"
	storagetesting "k8s.io/apiserver/pkg/storage/testing"
)

// commonChecks run on the bare store and on the cache.
var commonChecks = []check{
	{name: "CreateWithTTL", run: plain(storagetesting.RunTestCreateWithTTL)},
	{name: "CreateWithKeyExist", run: plain(storagetesting.RunTestCreateWithKeyExist)},
	{name: "Get", run: plain(storagetesting.RunTestGet)},
	{name: "UnconditionalDelete", run: plain(storagetesting.RunTestUnconditionalDelete)},
	{name: "ConditionalDelete", run: plain(storagetesting.RunTestConditionalDelete)},
	{name: "DeleteWithSuggestion", run: plain(storagetesting.RunTestDeleteWithSuggestion)},
	{name: "DeleteWithSuggestionAndConflict", run: plain(storagetesting.RunTestDeleteWithSuggestionAndConflict)},
	{name: "DeleteWithConflict", run: plain(storagetesting.RunTestDeleteWithConflict)},
	{name: "DeleteWithSuggestionOfDeletedObject", run: plain(storagetesting.RunTestDeleteWithSuggestionOfDeletedObject)},
	{name: "ValidateDeletionWithSuggestion", run: plain(storagetesting.RunTestValidateDeletionWithSuggestion)},
	{name: "ValidateDeletionWithOnlySuggestionValid", run: plain(storagetesting.RunTestValidateDeletionWithOnlySuggestionValid)},
	{name: "PreconditionalDeleteWithSuggestion", run: plain(storagetesting.RunTestPreconditionalDeleteWithSuggestion)},
	{name: "PreconditionalDeleteWithOnlySuggestionPass", run: plain(storagetesting.RunTestPreconditionalDeleteWithOnlySuggestionPass)},
	{name: "DeleteWithConflictAndMissingExpectedTransformOrDecodeError", run: deleteUnreadable},
	{name: "DeleteExpectedTransformOrDecodeError", run: deleteExpectedUnreadable},
	{name: "DeleteWithSuggestionAndMissingExpectedTransformOrDecodeError", run: deleteUnexpected},
	{name: "ListPaging", run: plain(storagetesting.RunTestListPaging)},
	{name: "GetListNonRecursive", run: listNonRecursive},
	{name: "GetListRecursivePrefix", run: plain(storagetesting.RunTestGetListRecursivePrefix)},
	{name: "KeySchema", run: plain(storagetesting.RunTestKeySchema)},
	{name: "NamespaceScopedList", run: plain(storagetesting.RunTestNamespaceScopedList, withIndex)},
	{name: "GuaranteedUpdateWithTTL", run: plain(storagetesting.RunTestGuaranteedUpdateWithTTL)},
	{name: "GuaranteedUpdateWithConflict", run: plain(storagetesting.RunTestGuaranteedUpdateWithConflict)},
	{name: "GuaranteedUpdateWithSuggestionAndConflict", run: plain(storagetesting.RunTestGuaranteedUpdateWithSuggestionAndConflict)},
	{name: "CompactRevision", run: compactRevision},
	{name: "Watch", run: plain(storagetesting.RunTestWatch)},
	{name: "ClusterScopedWatch", run: plain(storagetesting.RunTestClusterScopedWatch, withClusterScope, withIndex)},
	{name: "NamespaceScopedWatch", run: plain(storagetesting.RunTestNamespaceScopedWatch, withIndex), hasty: true},
	{name: "DeleteTriggerWatch", run: plain(storagetesting.RunTestDeleteTriggerWatch)},
	{name: "WatchFromNonZero", run: plain(storagetesting.RunTestWatchFromNonZero)},
	{name: "DelayedWatchDelivery", run: plain(storagetesting.RunTestDelayedWatchDelivery), hasty: true},
	{name: "WatcherTimeout", run: plain(storagetesting.RunTestWatcherTimeout)},
	{name: "WatchDeleteEventObjectHaveLatestRV", run: plain(storagetesting.RunTestWatchDeleteEventObjectHaveLatestRV)},
	{name: "WatchInitializationSignal", run: plain(storagetesting.RunTestWatchInitializationSignal)},
	{name: "SendInitialEventsBackwardCompatibility", run: plain(storagetesting.RunSendInitialEventsBackwardCompatibility)},
}

func deleteUnreadable(t *testing.T, open opener) {
	gate(t, features.AllowUnsafeMalformedObjectDeletion, true)
	v := &breakable{}
	s := open(t, func(o *options) { v.Transformer, o.transformer = o.transformer, v })
	storagetesting.RunTestDeleteWithConflictAndMissingExpectedTransformOrDecodeError(context.Background(), t, s, v.broken.Store)
}

func deleteExpectedUnreadable(t *testing.T, open opener) {
	gate(t, features.AllowUnsafeMalformedObjectDeletion, true)
	t.Run("Transform", func(t *testing.T) {
		v := &breakable{}
		s := open(t, func(o *options) { v.Transformer, o.transformer = o.transformer, v })
		storagetesting.RunTestDeleteExpectedTransformOrDecodeError(context.Background(), t, s, v.broken.Store)
	})
	t.Run("Decode", func(t *testing.T) {
		etcd3.TestOnlySetFatalOnDecodeError(t, false) // the cache meets the value too
		c := &breakableCodec{}
		s := open(t, func(o *options) { c.Codec, o.codec = o.codec, c })
		storagetesting.RunTestDeleteExpectedTransformOrDecodeError(context.Background(), t, s, c.broken.Store)
	})
}

func deleteUnexpected(t *testing.T, open opener) {
	gate(t, features.AllowUnsafeMalformedObjectDeletion, true)
	storagetesting.RunTestDeleteWithSuggestionAndMissingExpectedTransformOrDecodeError(context.Background(), t, open(t))
}

func listNonRecursive(t *testing.T, open opener) {
	s := open(t)
	storagetesting.RunTestGetListNonRecursive(context.Background(), t, s.increase, s)
}

func compactRevision(t *testing.T, open opener) {
	gate(t, features.ListFromCacheSnapshot, true)
	s := open(t)
	storagetesting.RunTestCompactRevision(context.Background(), t, s, s.increase, s.compact)
}
