package harness

// Often is how often a random test does something: a third of n with the race detector, which
// makes a process several times slower. There it is about races, not about rare requests.
func Often(n int) int {
	if raceEnabled {
		return max(1, n/3)
	}
	return n
}
