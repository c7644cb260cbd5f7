//go:build race

package harness

// raceEnabled says that the tests run with the race detector, so sharder is built
// with it as well.
const raceEnabled = true
