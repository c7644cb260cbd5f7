package integration

import (
	"testing"

	"github.com/sharder/sharder/integration/harness"
)

func TestMain(m *testing.M) { harness.Main(m) }
