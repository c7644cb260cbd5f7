package kubernetes

import (
	"context"
	"sync/atomic"
	"testing"

	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apiserver/pkg/storage/etcd3"
	storagetesting "k8s.io/apiserver/pkg/storage/testing"
	"k8s.io/apiserver/pkg/storage/value"
)

// changeable is a transformer that is another one at each moment. A store keeps the one
// it was made with; the suite exchanges it while the store runs.
type changeable struct {
	now atomic.Pointer[value.Transformer]
}

// newChangeable is a changeable that is v to begin with.
func newChangeable(v value.Transformer) *changeable {
	c := &changeable{}
	c.now.Store(&v)
	return c
}

func (c *changeable) TransformFromStorage(ctx context.Context, data []byte, key value.Context) ([]byte, bool, error) {
	return (*c.now.Load()).TransformFromStorage(ctx, data, key)
}

func (c *changeable) TransformToStorage(ctx context.Context, data []byte, key value.Context) ([]byte, error) {
	return (*c.now.Load()).TransformToStorage(ctx, data, key)
}

// change exchanges the transformer and gives the way back.
func (c *changeable) change(to value.Transformer) (back func()) {
	before := c.now.Swap(&to)
	return func() { c.now.Store(before) }
}

// UpdatePrefixTransformer makes a subject what the suite calls an
// InterfaceWithPrefixTransformer.
func (s *subject) UpdatePrefixTransformer(modify storagetesting.PrefixTransformerModifier) func() {
	copied := *s.base
	return s.transformer.change(modify(&copied))
}

// UpdateTransformer makes a subject an InterfaceWithTransformerOverride.
func (s *subject) UpdateTransformer(modify storagetesting.TransformerModifier) func() {
	return s.transformer.change(modify(*s.transformer.now.Load()))
}

// breakable is a transformer that fails on demand.
type breakable struct {
	value.Transformer
	broken atomic.Bool
}

func (b *breakable) TransformFromStorage(ctx context.Context, data []byte, key value.Context) ([]byte, bool, error) {
	if b.broken.Load() {
		return nil, false, errSynthetic
	}
	return b.Transformer.TransformFromStorage(ctx, data, key)
}

// breakableCodec is a codec that fails to decode on demand.
type breakableCodec struct {
	runtime.Codec
	broken atomic.Bool
}

func (b *breakableCodec) Decode(data []byte, defaults *schema.GroupVersionKind, into runtime.Object) (runtime.Object, *schema.GroupVersionKind, error) {
	if b.broken.Load() {
		return nil, nil, errSynthetic
	}
	return b.Codec.Decode(data, defaults, into)
}

// corrupt is the store's own error for a value that can't be transformed. Its type is
// not exported, so a transformer that fails is asked for one.
func corrupt(t *testing.T) error {
	t.Helper()
	failing := &breakable{}
	failing.broken.Store(true)
	_, _, err := etcd3.WithCorruptObjErrorHandlingTransformer(failing).TransformFromStorage(context.Background(), nil, nil)
	if err == nil {
		t.Fatal("no error")
	}
	return err
}
