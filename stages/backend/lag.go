package backend

import "time"

// lagAge is how far a member may be behind the others before it is asked last: what they had
// applied so long ago it has to have applied, too. One that was frozen, or comes from
// behind a broken network, believes that all is well until it has heard of what it missed, and
// would answer serializable reads with what was there before.
const lagAge = 300 * time.Millisecond

// mark is how far a member had applied its cluster's log at some time.
type mark struct {
	applied uint64 // an index of the log; it never goes back while a cluster lives
	at      time.Time
}

// marks are two of a member's, the newest first. The next one is taken when the newest is old
// enough to compare with, so that there always is one that is.
type marks [2]mark

// with adds one, if it is time.
func (m marks) with(applied uint64) marks {
	if time.Since(m[0].at) < lagAge {
		return m
	}
	return marks{{applied, time.Now()}, m[0]}
}

// agedIndex is the newest that is old enough, 0 if none is.
func (m marks) agedIndex() uint64 {
	for _, one := range m {
		if !one.at.IsZero() && time.Since(one.at) >= lagAge {
			return one.applied
		}
	}
	return 0
}

// behind reports whether a member that has applied so much lags behind another one.
func (c *Cluster) behind(m *member, applied uint64) bool {
	for _, s := range c.roster.Load().seats {
		now := s.now()
		if s.member != m && now.health == up && now.told && now.marks.agedIndex() > applied {
			return true
		}
	}
	return false
}
