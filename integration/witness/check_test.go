package witness

import "testing"

func TestTheComparisonSeesWhatIsLostOrTwiceOrOutOfOrder(t *testing.T) {
	truth := []event{{"a-1", 2, false}, {"a-2", 3, false}, {"a-1", 4, true}, {"a-end", 5, false}}
	if diff := compareEvents(truth, truth); diff != "" {
		t.Errorf("equal histories differ: %s", diff)
	}
	for name, seen := range map[string][]event{
		"lost":         {truth[0], truth[2], truth[3]},
		"lost at once": {truth[1], truth[2], truth[3]},
		"twice":        {truth[0], truth[1], truth[1], truth[2], truth[3]},
		"order":        {truth[1], truth[0], truth[2], truth[3]},
		"not yet":      {truth[0], truth[1]},
		"another kind": {truth[0], truth[1], {"a-1", 4, false}, truth[3]},
	} {
		if compareEvents(truth, seen) == "" {
			t.Errorf("%s: not seen", name)
		}
	}
}
