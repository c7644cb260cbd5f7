package pipeline_test

import (
	"cmp"
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"

	"github.com/sharder/sharder/pipeline"
)

// An item is a value that remembers where it came from, so that a test sees whether
// equal ones kept their order.
type item struct{ key, list, pos int }

func byKey(a, b item) int { return cmp.Compare(a.key, b.key) }

// lists spreads keys over k sorted lists, each key in the list that pick names.
func lists(keys []int, k int, pick func(key int) int) [][]item {
	out := make([][]item, k)
	slices.Sort(keys)
	for _, key := range keys {
		i := pick(key)
		out[i] = append(out[i], item{key, i, len(out[i])})
	}
	return out
}

// sortEverything is what a merge must equal.
func sortEverything(lists [][]item) []item {
	var all []item
	for _, l := range lists {
		all = append(all, l...)
	}
	slices.SortStableFunc(all, byKey)
	return all
}

func checkMergeSorted(t *testing.T, in [][]item) {
	t.Helper()
	before := fmt.Sprint(in)
	got, want := pipeline.MergeSorted(byKey, in...), sortEverything(in)
	if !slices.Equal(got, want) {
		t.Errorf("merging %v:\ngot  %v\nwant %v", in, got, want)
	}
	if fmt.Sprint(in) != before {
		t.Errorf("the merge wrote to its input: %s is now %v", before, in)
	}
}

func TestMergeSortedEqualsSortingEverything(t *testing.T) {
	rnd := rand.New(rand.NewPCG(1, 2))
	for round := range 4000 {
		k := 1 + round%20
		keys := make([]int, rnd.IntN(60))
		for i := range keys {
			keys[i] = rnd.IntN(1 + rnd.IntN(50)) // with many that are equal
		}
		spread := []func(int) int{
			func(int) int { return rnd.IntN(k) },                              // anywhere
			func(key int) int { return key % k },                              // hashed
			func(key int) int { return min(k-1, key/10) },                     // in ranges
			func(key int) int { return k - 1 - min(k-1, key/10) },             // in ranges, the other way round
			func(key int) int { return min(k-1, (key+rnd.IntN(2))/10) },       // in ranges that touch
			func(int) int { return min(k-1, rnd.IntN(k)*rnd.IntN(2)) },        // half of them in the first
			func(key int) int { return (min(k-1, key/10) + k/2) % max(k, 1) }, // in ranges, rotated
		}
		checkMergeSorted(t, lists(keys, k, spread[round%len(spread)]))
	}
}

// FuzzMergeSorted reads each byte as a key in its upper and a list in its lower bits.
func FuzzMergeSorted(f *testing.F) {
	f.Add([]byte{})
	f.Add([]byte{0x10, 0x11, 0x12})
	f.Add([]byte{0x10, 0x20, 0x31, 0x41, 0x52})
	f.Add([]byte{0x1f, 0x1e, 0x1d, 0x1c, 0x1b, 0x10, 0x20, 0x2f})
	f.Fuzz(func(t *testing.T, data []byte) {
		in := make([][]item, 16)
		for key := range 16 {
			for _, b := range data {
				if int(b>>4) == key {
					l := int(b & 15)
					in[l] = append(in[l], item{key, l, len(in[l])})
				}
			}
		}
		checkMergeSorted(t, in)
		checkMergeSorted(t, in[:4])
		checkMergeSorted(t, in[:5])
	})
}

func TestMergeSortedOfNothingIsNil(t *testing.T) {
	for _, in := range [][][]item{nil, {}, {nil}, {{}, nil, {}}} {
		if got := pipeline.MergeSorted(byKey, in...); got != nil {
			t.Errorf("got %v", got)
		}
	}
}

func TestOneListAloneIsNotCopied(t *testing.T) {
	l := make([]item, 3, 10)
	got := pipeline.MergeSorted(byKey, nil, l, []item{})
	if &got[0] != &l[0] || len(got) != 3 {
		t.Error("copied")
	}
	if cap(got) != 3 {
		t.Error("appending to the result would write into the input")
	}
}

func TestListsThatDoNotInterleaveCostComparisonsPerListOnly(t *testing.T) {
	for _, k := range []int{2, 4, 9} {
		for _, reversed := range []bool{false, true} {
			in := make([][]item, k)
			for i := range in {
				for j := range 100 {
					in[i] = append(in[i], item{key: i*99 + j}) // the last of one is the first of the next
				}
			}
			if reversed {
				slices.Reverse(in)
				for i := range in {
					in[i] = in[i][1:] // equal ones would have to change places
				}
			}
			compared := 0
			got := pipeline.MergeSorted(func(a, b item) int { compared++; return byKey(a, b) }, in...)
			if !slices.IsSortedFunc(got, byKey) || len(got) != len(slices.Concat(in...)) {
				t.Errorf("k=%d: wrong result", k)
			}
			if limit := 2 * k * k; compared > limit {
				t.Errorf("k=%d, reversed %v: %d comparisons for %d values", k, reversed, compared, k*100)
			}
		}
	}
}

func TestManyListsCostALogarithmOfComparisonsPerValue(t *testing.T) {
	const k, per = 64, 50
	in := make([][]string, k)
	for j := range per {
		for i := range in {
			in[i] = append(in[i], fmt.Sprintf("%03d/%03d", j, i))
		}
	}
	compared := 0
	got := pipeline.MergeSorted(func(a, b string) int { compared++; return strings.Compare(a, b) }, in...)
	if len(got) != k*per || !slices.IsSorted(got) {
		t.Error("wrong result")
	}
	if limit := 7 * k * per; compared > limit { // log2(64) = 6, and a start
		t.Errorf("%d comparisons for %d values of %d lists, want at most %d", compared, k*per, k, limit)
	}
}
