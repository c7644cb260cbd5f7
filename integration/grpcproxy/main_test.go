package grpcproxy_test

import (
	"flag"
	"testing"

	"github.com/sharder/sharder/integration/harness"
)

// TestMain lets more tests run at once than there are processors: most of what they do is
// wait.
func TestMain(m *testing.M) {
	flag.Parse()
	given := false
	flag.Visit(func(f *flag.Flag) { given = given || f.Name == "test.parallel" })
	if !given {
		if err := flag.Set("test.parallel", "6"); err != nil {
			panic(err)
		}
	}
	harness.Main(m)
}
