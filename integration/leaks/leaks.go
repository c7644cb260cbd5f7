// Package leaks has the tests of a package fail if they leave goroutines behind. That is goleak's
// work; goleak itself looks for less than half a second, and on a busy machine what is at its end
// may take longer to get there.
package leaks

import (
	"testing"
	"time"

	"go.uber.org/goleak"
)

// patience is how long what the tests have left behind may take to end: what never does is found
// all the same.
const patience = 30 * time.Second

// Main runs the tests, as TestMain, and looks for goroutines that are left.
func Main(m *testing.M, opts ...goleak.Option) { goleak.VerifyTestMain(settling{m}, opts...) }

// settling gives goroutines the time to end, before goleak looks.
type settling struct{ *testing.M }

func (s settling) Run() int {
	code := s.M.Run()
	for end := time.Now().Add(patience); code == 0 && goleak.Find() != nil && time.Now().Before(end); {
	}
	return code
}
