//go:build !race

package harness

// raceEnabled says that the tests run without the race detector.
const raceEnabled = false
