package kubernetes

import (
	"context"
	"testing"

	clientv3 "go.etcd.io/etcd/client/v3"
	"k8s.io/apiserver/pkg/features"
	"k8s.io/apiserver/pkg/storage"
	"k8s.io/apiserver/pkg/storage/etcd3"
	storagetesting "k8s.io/apiserver/pkg/storage/testing"
)

// storeChecks run on the bare store, after the commonChecks.
var storeChecks = []check{
	{name: "Create", run: func(t *testing.T, open opener) {
		s := open(t)
		storagetesting.RunTestCreate(context.Background(), t, s, s.stored)
	}},
	{name: "GuaranteedUpdate", run: func(t *testing.T, open opener) {
		s := open(t)
		storagetesting.RunTestGuaranteedUpdate(context.Background(), t, s, s.stored)
	}},
	{name: "GuaranteedUpdateChecksStoredData", run: changing(storagetesting.RunTestGuaranteedUpdateChecksStoredData)},
	{name: "TransformationFailure", run: changing(storagetesting.RunTestTransformationFailure)},
	{name: "List", run: both(features.EtcdRangeStream, storeList)},
	{name: "ConsistentList", run: both(features.EtcdRangeStream, storeConsistentList)},
	{name: "GetListWithErrorAggregation", run: aggregated},
	{name: "GetListWithoutErrorAggregation", run: notAggregated},
	{name: "ListContinuation", run: counted(storagetesting.RunTestListContinuation)},
	{name: "ListPaginationRareObject", run: counted(storagetesting.RunTestListPaginationRareObject)},
	{name: "ListContinuationWithFilter", run: counted(storagetesting.RunTestListContinuationWithFilter)},
	{name: "ListInconsistentContinuation", run: func(t *testing.T, open opener) {
		s := open(t)
		storagetesting.RunTestListInconsistentContinuation(context.Background(), t, s, s.compact)
	}},
	{name: "ListResourceVersionMatch", run: changing(storagetesting.RunTestListResourceVersionMatch)},
	{name: "Stats", run: both(features.SizeBasedListCostEstimate, storeStats)},
	{name: "WatchFromZero", run: func(t *testing.T, open opener) {
		s := open(t)
		storagetesting.RunTestWatchFromZero(context.Background(), t, s, s.compact)
	}},
	{name: "WatchError", run: changing(storagetesting.RunTestWatchError)},
	{name: "WatchErrorIsBlockingFurtherEvents", run: changing(storagetesting.RunWatchErrorIsBlockingFurtherEvents)},
	{name: "WatchContextCancel", run: plain(storagetesting.RunTestWatchContextCancel)},
	{name: "WatchWithUnsafeDelete", run: func(t *testing.T, open opener) {
		gate(t, features.AllowUnsafeMalformedObjectDeletion, true)
		storagetesting.RunTestWatchWithUnsafeDelete(context.Background(), t, open(t), corrupt(t))
	}},
	{name: "ProgressNotify", run: func(t *testing.T, open opener) {
		s := open(t)
		storagetesting.RunOptionalTestProgressNotify(context.Background(), t, s, s.increase)
	}},
	{name: "WatchDispatchBookmarkEvents", run: func(t *testing.T, open opener) {
		storagetesting.RunTestWatchDispatchBookmarkEvents(context.Background(), t, open(t), false)
	}},
	{name: "WatchSemantics", run: streams(storagetesting.RunWatchSemantics), untouched: true, hasty: true},
	{name: "WatchSemanticInitialEventsExtended", run: streams(storagetesting.RunWatchSemanticInitialEventsExtended)},
	{name: "WatchListMatchSingle", run: streams(storagetesting.RunWatchListMatchSingle)},
}

// streams runs a test with lists by RangeStream and without, and with objects decoded
// one by one and side by side.
func streams(test func(context.Context, *testing.T, storage.Interface)) func(*testing.T, opener) {
	return both(features.EtcdRangeStream, func(t *testing.T, open opener, _ bool) {
		freshSupport(t)
		both(features.ConcurrentWatchObjectDecode, func(t *testing.T, open opener, _ bool) {
			test(context.Background(), t, open(t))
		})(t, open)
	})
}

// changing runs a test that exchanges the transformer of the store.
func changing(test func(context.Context, *testing.T, storagetesting.InterfaceWithPrefixTransformer)) func(*testing.T, opener) {
	return func(t *testing.T, open opener) { test(context.Background(), t, open(t)) }
}

// maxPage is the largest page the store asks for when it filters.
const maxPage = 10000

// counted runs a test that wants to know how many values were read for a list, and in
// how many requests: in pages that double, until all values are in.
func counted(test func(context.Context, *testing.T, storage.Interface, storagetesting.CallsValidation)) func(*testing.T, opener) {
	return func(t *testing.T, open opener) {
		gate(t, features.ListFromCacheSnapshot, false) // it reads a key of its own
		s := open(t)
		s.reads.GetReadsAndReset()
		test(context.Background(), t, s, func(t *testing.T, page, values uint64) {
			if have := s.base.GetReadsAndReset(); have != values {
				t.Errorf("%d values were read, want %d", have, values)
			}
			requests := uint64(1)
			if page != 0 {
				for sum := uint64(1); sum < values; requests++ {
					page = min(page*2, maxPage)
					sum += page
				}
			}
			if have := s.reads.GetReadsAndReset() + s.reads.GetStreamReadsAndReset(); have != requests {
				t.Fatalf("%d requests, want %d", have, requests)
			}
		})
	}
}

// storeList also wants the lists to have gone through RangeStream exactly if apiserver
// is told to use it: a target that refuses it would be read by Range, and pass.
func storeList(t *testing.T, open opener, streamed bool) {
	freshSupport(t)
	s := open(t)
	s.reads.GetStreamReadsAndReset()
	storagetesting.RunTestList(context.Background(), t, s, s.compact, false, s.lists)
	if n := s.reads.GetStreamReadsAndReset(); (n > 0) != streamed {
		t.Errorf("%d lists by RangeStream", n)
	}
}

func storeConsistentList(t *testing.T, open opener, _ bool) {
	freshSupport(t)
	s := open(t)
	storagetesting.RunTestConsistentList(context.Background(), t, s, s.increase, false, true, false)
}

func aggregated(t *testing.T, open opener) {
	gate(t, features.AllowUnsafeMalformedObjectDeletion, true)
	s := open(t)
	s.Interface = etcd3.NewStoreWithUnsafeCorruptObjectDeletion(s.Interface, pods)
	storagetesting.RunTestGetListWithErrorAggregation(context.Background(), t, s, corrupt(t))
}

func notAggregated(t *testing.T, open opener) {
	gate(t, features.AllowUnsafeMalformedObjectDeletion, false)
	storagetesting.RunTestGetListWithoutErrorAggregation(context.Background(), t, open(t), corrupt(t))
}

// storeStats has the store count keys the way it does for itself.
func storeStats(t *testing.T, open opener, sizes bool) {
	s := open(t)
	if sizes {
		err := s.EnableResourceSizeEstimation(func(ctx context.Context) (keys []string, err error) {
			res, err := s.client.KV.Get(ctx, "/pods/", clientv3.WithPrefix(), clientv3.WithKeysOnly())
			if err != nil {
				return nil, err
			}
			for _, kv := range res.Kvs {
				keys = append(keys, string(kv.Key))
			}
			return keys, nil
		})
		if err != nil {
			t.Fatal(err)
		}
	}
	storagetesting.RunTestStats(context.Background(), t, s, s.codec, s.transformer, sizes)
}
