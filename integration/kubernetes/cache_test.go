package kubernetes

import (
	"context"
	"fmt"
	"sync/atomic"
	"testing"
	"time"

	apiequality "k8s.io/apimachinery/pkg/api/equality"
	"k8s.io/apimachinery/pkg/fields"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/runtime/serializer/protobuf"
	"k8s.io/apiserver/pkg/apis/example"
	examplev1 "k8s.io/apiserver/pkg/apis/example/v1"
	"k8s.io/apiserver/pkg/storage"
	"k8s.io/apiserver/pkg/storage/cacher"
	"k8s.io/apiserver/pkg/storage/value/encrypt/identity"
	"k8s.io/client-go/tools/cache"
	"k8s.io/utils/clock"
)

func withClusterScope(o *options) { o.clusterScoped = true }
func withIndex(o *options)        { o.indexed = true }

// openCache opens a watch cache over a bare store, as kube-apiserver serves reads and
// watches from. It lists and watches the target itself, and asks it for progress.
func openCache(t *testing.T, d *deployment, opts ...option) *subject {
	t.Helper()
	o := options{prefix: "/registry", codec: protobufCodec(), transformer: identity.NewEncryptCheckTransformer()}.with(opts)
	s := bareStore(t, d, o)
	hurried := &hurriedClock{}
	c, err := cacher.NewCacherFromConfig(cacheConfig(s, o, hurried))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(c.Stop)
	if err := c.Wait(context.Background()); err != nil {
		t.Fatal(err)
	}
	delegator := cacher.NewCacheDelegator(c, s.Interface)
	t.Cleanup(delegator.Stop)
	storeObserved := s.observed
	s.Interface = delegator
	s.observed = func(t *testing.T, revision int64) {
		storeObserved(t, revision)
		hurried.await(t)
	}
	return s
}

// cacheConfig is what kube-apiserver configures for pods.
func cacheConfig(s *subject, o options, c clock.WithTicker) cacher.Config {
	config := cacher.Config{
		Storage:             s.Interface,
		Versioner:           storage.APIObjectVersioner{},
		GroupResource:       pods,
		EventsHistoryWindow: cacher.DefaultEventFreshDuration,
		ResourcePrefix:      "/pods/",
		KeyFunc:             func(obj runtime.Object) (string, error) { return storage.NamespaceKeyFunc("/pods/", obj) },
		GetAttrsFunc:        podAttrs,
		NewFunc:             newPod,
		NewListFunc:         newPodList,
		Indexers:            &cache.Indexers{},
		Codec:               s.codec,
		Clock:               c,
	}
	if o.clusterScoped {
		config.KeyFunc = func(obj runtime.Object) (string, error) { return storage.NoNamespaceKeyFunc("/pods/", obj) }
	}
	if o.indexed {
		config.IndexerFuncs = storage.IndexerFuncs{"spec.nodeName": func(obj runtime.Object) string { return obj.(*example.Pod).Spec.NodeName }}
		config.Indexers = &cache.Indexers{
			"f:spec.nodeName":      func(obj any) ([]string, error) { return []string{obj.(*example.Pod).Spec.NodeName}, nil },
			"f:metadata.namespace": func(obj any) ([]string, error) { return []string{obj.(*example.Pod).Namespace}, nil },
		}
	}
	return config
}

// protobufCodec encodes as kube-apiserver does.
func protobufCodec() runtime.Codec {
	pb := protobuf.NewSerializer(scheme, scheme)
	return codecs.CodecForVersions(pb, pb, schema.GroupVersions{examplev1.SchemeGroupVersion}, nil)
}

// podAttrs are the labels and fields by which pods are selected.
func podAttrs(obj runtime.Object) (labels.Set, fields.Set, error) {
	pod, ok := obj.(*example.Pod)
	if !ok {
		return nil, nil, fmt.Errorf("%T is not a pod", obj)
	}
	return pod.Labels, fields.Set{
		"metadata.name":      pod.Name,
		"metadata.namespace": pod.Namespace,
		"spec.nodeName":      pod.Spec.NodeName,
		"spec.restartPolicy": string(pod.Spec.RestartPolicy),
		"status.phase":       string(pod.Status.Phase),
	}, nil
}

// settling is a subject whose Create returns once the cache has the object. The tests of
// watch lists want that.
type settling struct{ *subject }

func (s settling) Create(ctx context.Context, key string, obj, out runtime.Object, ttl uint64) error {
	if err := s.subject.Create(ctx, key, obj, out, ttl); err != nil {
		return err
	}
	for {
		cached := newPod()
		err := s.Get(ctx, key, storage.GetOptions{ResourceVersion: "0"}, cached)
		if err == nil && apiequality.Semantic.DeepEqual(cached, out) || err != nil && !storage.IsNotFound(err) {
			return err
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-time.After(10 * time.Millisecond):
		}
	}
}

// unhurried is a subject whose Create ends a moment after its context has ended. A test of bookmarks has
// three seconds for a hundred writes, and a watch beside them, and is content where the watch ends first:
// but not if it hears first of the write that the same end of time has cut short.
type unhurried struct{ *subject }

func (u unhurried) Create(ctx context.Context, key string, obj, out runtime.Object, ttl uint64) error {
	err := u.subject.Create(ctx, key, obj, out, ttl)
	if err != nil && ctx.Err() != nil {
		time.Sleep(time.Second)
	}
	return err
}

// compactionPeriod is how often a cache asks its store for the compaction point, and
// tells its snapshots from it.
const compactionPeriod = 15 * time.Second

// hurriedClock is the real clock but for that period, which a test can't wait for: it
// lasts 50 milliseconds, and turns are counted.
type hurriedClock struct {
	clock.RealClock
	turns atomic.Int64
}

func (h *hurriedClock) NewTimer(d time.Duration) clock.Timer {
	if d != compactionPeriod {
		return h.RealClock.NewTimer(d)
	}
	return &hurriedTimer{h.RealClock.NewTimer(d / 300), h}
}

// await returns when a turn that began after the call has ended.
func (h *hurriedClock) await(t *testing.T) {
	t.Helper()
	seen := h.turns.Load()
	eventually(t, "the cache to see the compaction", func() bool { return h.turns.Load() >= seen+2 })
}

// hurriedTimer is the timer of that period.
type hurriedTimer struct {
	clock.Timer
	clock *hurriedClock
}

func (h *hurriedTimer) Reset(d time.Duration) bool {
	h.clock.turns.Add(1)
	return h.Timer.Reset(d / 300)
}
