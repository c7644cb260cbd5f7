package tree

import (
	"os"
	"testing"
	"testing/fstest"

	"github.com/sharder/sharder/integration/harness"
)

func TestEveryTestThatAPageNamesExists(t *testing.T) {
	root, err := harness.Root()
	if err != nil {
		t.Fatal(err)
	}
	names, wrong, err := Claims(os.DirFS(root))
	if err != nil || names < 20 {
		t.Fatalf("%d names, %v", names, err)
	}
	for _, w := range wrong {
		t.Error(w)
	}
}

func TestAClaimWithoutATestIsSeen(t *testing.T) {
	names, wrong, err := Claims(fstest.MapFS{
		"a_test.go": {Data: []byte("package a\n\nfunc TestReal(t *testing.T) {}\n")},
		"page.md":   {Data: []byte("Shown by `TestReal` and `TestUnreal`.\n")},
	})
	if err != nil || names != 2 || len(wrong) != 1 || wrong[0] != "page.md: there is no TestUnreal" {
		t.Fatalf("%d names, %q, %v", names, wrong, err)
	}
}
