package order

// Arrangement is the order of the events inside one global revision.
type Arrangement struct{}
