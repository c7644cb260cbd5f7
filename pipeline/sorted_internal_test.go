package pipeline

import (
	"cmp"
	"fmt"
	"slices"
	"testing"
)

// BenchmarkLinearOrTree is what linearUpTo was chosen by: 1000 keys in k lists, merged
// in both ways.
func BenchmarkLinearOrTree(b *testing.B) {
	const keys = 1000
	for k := 2; k <= 8; k++ {
		lists := make([][]string, k)
		for i := range keys {
			lists[i%k] = append(lists[i%k], fmt.Sprintf("/registry/pods/default/pod-%06d", i))
		}
		b.Run(fmt.Sprintf("k=%d/linear", k), func(b *testing.B) {
			for b.Loop() {
				mergeLinear(cmp.Compare[string], keys, slices.Clone(lists))
			}
		})
		b.Run(fmt.Sprintf("k=%d/tree", k), func(b *testing.B) {
			for b.Loop() {
				mergeTree(cmp.Compare[string], keys, slices.Clone(lists))
			}
		})
	}
}
