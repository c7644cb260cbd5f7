package order

import (
	"testing"
	"time"
)

// What is kept with a period: at least the period, at most a tenth more than twice, and
// the compactions come no more often than once a period.
func TestPeriodKeepsAPeriod(t *testing.T) {
	r := Retention{Period: time.Minute}
	start := time.Now()
	var marks []mark
	last := mark{at: start}
	written := map[time.Time]int64{}
	compactions := 0
	for i := 1; i <= 100; i++ {
		now := start.Add(time.Duration(i) * r.Period / looks)
		marks = append(marks, mark{now, int64(10 * i)})
		written[now] = int64(10 * i)
		var goal int64
		goal, marks = r.goal(now, last.at, marks)
		if goal == 0 {
			continue
		}
		compactions++
		if now.Sub(last.at) < r.Period*8/10 {
			t.Fatalf("compacted after %v", now.Sub(last.at))
		}
		for at, rev := range written {
			if rev > goal && now.Sub(at) > r.Period+r.Period/looks || rev < goal && now.Sub(at) < r.Period {
				t.Fatalf("at %v compacted at %d: revision %d is %v old", now.Sub(start), goal, rev, now.Sub(at))
			}
		}
		if len(marks) > looks+2 {
			t.Fatalf("%d marks are kept", len(marks))
		}
		last = mark{now, goal}
	}
	if compactions < 8 {
		t.Fatalf("%d compactions in ten periods", compactions)
	}
}

func TestRevisionsKeepThatMany(t *testing.T) {
	r := Retention{Revisions: 100}
	if goal, marks := r.goal(time.Now(), time.Now(), []mark{{revision: 70}, {revision: 170}}); goal != 70 || len(marks) != 1 {
		t.Fatalf("compact at %d, %d marks left", goal, len(marks))
	}
}
