package kubernetes

import (
	"context"
	"errors"
	"testing"
	"time"

	"github.com/sourcegraph/conc/pool"
	clientv3 "go.etcd.io/etcd/client/v3"
	"go.etcd.io/etcd/client/v3/kubernetes"
	"go.uber.org/zap"
	"k8s.io/apimachinery/pkg/api/apitesting"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	examplev1 "k8s.io/apiserver/pkg/apis/example/v1"
	"k8s.io/apiserver/pkg/features"
	"k8s.io/apiserver/pkg/storage"
	"k8s.io/apiserver/pkg/storage/etcd3"
	storagetesting "k8s.io/apiserver/pkg/storage/testing"
	"k8s.io/apiserver/pkg/storage/value"
	utilfeature "k8s.io/apiserver/pkg/util/feature"
	"k8s.io/utils/clock"
)

// valuePrefix is what the transformer of the bare store puts before each value.
const valuePrefix = "test!"

// pods is the resource that is stored.
var pods = schema.GroupResource{Resource: "pods"}

// subject is what one test of the suite works on: a store on a target whose keyspace was
// empty when it was opened, with what the test needs around it. It closes with the test.
type subject struct {
	storage.Interface // the bare store, or the cache before it

	client      *kubernetes.Client
	reads       *storagetesting.KVRecorder         // counts what goes out through client
	lists       *storagetesting.KubernetesRecorder // records the lists among it
	codec       runtime.Codec
	base        *storagetesting.PrefixTransformer // the transformer, unless an option says another
	transformer *changeable

	observed func(t *testing.T, revision int64) // returns when the store has seen a compaction
}

// options are what a subject is made with.
type options struct {
	prefix        string // of all keys
	codec         runtime.Codec
	transformer   value.Transformer
	clusterScoped bool // a cache's keys have no namespace in them
	indexed       bool // a cache has indexes by node name and namespace
}

// option is what a test wants otherwise. It is applied once.
type option func(*options)

// with is o with what a test wants.
func (o options) with(opts []option) options {
	for _, opt := range opts {
		opt(&o)
	}
	return o
}

// openStore opens a bare store with what the tests of apiserver's etcd3 package use.
func openStore(t *testing.T, d *deployment, opts ...option) *subject {
	t.Helper()
	base := storagetesting.NewPrefixTransformer([]byte(valuePrefix), false)
	o := options{codec: apitesting.TestCodec(codecs, examplev1.SchemeGroupVersion), transformer: base}
	s := bareStore(t, d, o.with(opts))
	s.base = base
	return s
}

// bareStore empties the keyspace and opens an etcd3 store on it, as kube-apiserver has
// one for each resource.
func bareStore(t *testing.T, d *deployment, o options) *subject {
	t.Helper()
	s := &subject{codec: o.codec, transformer: newChangeable(o.transformer)}
	s.connect(t, d.endpoint)
	wipe(t, s.client.Client)
	compactor := etcd3.NewCompactor(s.client.Client, 0, clock.RealClock{}, nil)
	t.Cleanup(compactor.Stop)
	leases := etcd3.NewDefaultLeaseManagerConfig()
	leases.ReuseDurationSeconds = 1 // as the suite's own setup: a test can't wait longer
	versioner := storage.APIObjectVersioner{}
	store, err := etcd3.New(s.client, compactor, o.codec, newPod, newPodList, o.prefix, "/pods/", pods,
		s.transformer, leases, etcd3.NewDefaultDecoder(o.codec, versioner), versioner)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(store.Close)
	s.Interface = store
	s.observed = func(t *testing.T, revision int64) {
		eventually(t, "the store to see the compaction", func() bool { return store.CompactRevision() == revision })
	}
	return s
}

// connect makes the client, with recorders in it, as the suite's own setup does.
func (s *subject) connect(t *testing.T, endpoint string) {
	t.Helper()
	client, err := kubernetes.New(clientv3.Config{Endpoints: []string{endpoint}, DialTimeout: 10 * time.Second, Logger: zap.NewNop()})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { client.Close() })
	s.lists = storagetesting.NewKubernetesRecorder(client.Kubernetes)
	s.reads = storagetesting.NewKVRecorder(client.KV, s.lists)
	client.KV, client.Kubernetes = s.reads, s.lists
	s.client = client
}

// wipe deletes every key, one by one: there is no way for a test to say on which shard
// a key is.
func wipe(t *testing.T, c *clientv3.Client) {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	res, err := c.Get(ctx, "\x00", clientv3.WithFromKey(), clientv3.WithKeysOnly())
	if err != nil {
		t.Fatal(err)
	}
	p := pool.New().WithErrors().WithMaxGoroutines(16)
	for _, kv := range res.Kvs {
		p.Go(func() error {
			_, err := c.Delete(ctx, string(kv.Key))
			return err
		})
	}
	if err := p.Wait(); err != nil {
		t.Fatal(err)
	}
}

// eventually waits until something is so.
func eventually(t *testing.T, what string, so func() bool) {
	t.Helper()
	for deadline := time.Now().Add(time.Minute); !so(); time.Sleep(20 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("waited a minute for %s", what)
		}
	}
}

// compact is the suite's Compaction: as kube-apiserver's compactor does it, guarded by a
// key, and observed by the store.
func (s *subject) compact(ctx context.Context, t *testing.T, resourceVersion string) {
	t.Helper()
	revision, err := storage.APIObjectVersioner{}.ParseResourceVersion(resourceVersion)
	if err != nil {
		t.Fatal(err)
	}
	version, _, _, err := etcd3.Compact(ctx, s.client.Client, 0, int64(revision))
	if err != nil {
		_, _, _, err = etcd3.Compact(ctx, s.client.Client, version, int64(revision))
	}
	if err != nil {
		t.Fatal(err)
	}
	if utilfeature.DefaultFeatureGate.Enabled(features.ListFromCacheSnapshot) { // else nobody looks
		s.observed(t, int64(revision))
	}
}

// increase is the suite's IncreaseRVFunc: a write elsewhere.
func (s *subject) increase(ctx context.Context, t *testing.T) int64 {
	t.Helper()
	res, err := s.client.KV.Put(ctx, "increaseRV", "ok")
	if err != nil {
		t.Fatal(err)
	}
	return res.Header.Revision
}

// stored is the suite's KeyValidation: the key holds an encoded pod that names neither
// its revision nor itself.
func (s *subject) stored(ctx context.Context, t *testing.T, key string) {
	t.Helper()
	res, err := s.client.Client.KV.Get(ctx, key)
	if err != nil || len(res.Kvs) == 0 {
		t.Fatalf("%s: %v, %v", key, res, err)
	}
	obj, err := runtime.Decode(s.codec, res.Kvs[0].Value[len(valuePrefix):])
	if err != nil {
		t.Fatalf("%s: %v", key, err)
	}
	accessor, ok := obj.(interface {
		GetResourceVersion() string
		GetSelfLink() string
	})
	if !ok || accessor.GetResourceVersion() != "" || accessor.GetSelfLink() != "" {
		t.Errorf("%s: stored is %#v", key, obj)
	}
}

// errSynthetic is what breaks in tests of broken values.
var errSynthetic = errors.New("synthetic error")
