package order

import (
	"testing"
	"testing/synctest"
	"time"
)

func TestACrowdedLogWidensTheGapBetweenAppends(t *testing.T) {
	const interval = 2 * time.Millisecond
	for _, c := range []struct {
		perSecond int
		gap       time.Duration
		must      bool
	}{
		{500, interval, false},
		{1900, interval, false},
		{4000, 8 * time.Millisecond, true},
		{6000, 18 * time.Millisecond, true},
		{50000, maxGap, true},
	} {
		synctest.Test(t, func(t *testing.T) {
			p := &pace{}
			for range c.perSecond / 10 {
				p.entry()
				time.Sleep(time.Second / time.Duration(c.perSecond))
			}
			gap, must := p.gap(interval)
			if must != c.must || gap < c.gap*9/10 || gap > c.gap*11/10 {
				t.Errorf("%d entries a second: gap %v (%v), not %v (%v)", c.perSecond, gap, must, c.gap, c.must)
			}
			if gap, must := p.gap(-1); gap != -1 || must {
				t.Errorf("%d entries a second, no interval: gap %v (%v)", c.perSecond, gap, must)
			}
			time.Sleep(2 * paceSpan)
			if gap, must := p.gap(interval); gap != interval || must {
				t.Errorf("after a silence the gap is %v (%v)", gap, must)
			}
		})
	}
}
