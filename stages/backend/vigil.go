package backend

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
)

const (
	// quietPeriod is how long a member may leave all calls unanswered before it is asked
	// whether it serves at all.
	quietPeriod = 500 * time.Millisecond
	// patience is how long calls and streams may wait on a member that has no leader, or says
	// that it doesn't serve, while others have one and do: long enough for an election to
	// be over that all members take part in.
	patience = 2 * time.Second
)

// Why calls and streams end on a member that is left.
var (
	errFrozen  = errors.New("the member stopped answering")
	errStalled = errors.New("the member answers probes, but serves no requests")
	errOrphan  = errors.New("the member has lost the cluster's leader, and others have not")
)

// vigil is the watch over one member: it probes it and draws the conclusions. It belongs
// to one goroutine.
//
// A member that does not answer is left, and what waits for it ends, so that it can be
// asked of another one. One that answers, but can't serve what it should (it has no
// leader, is a learner, or leaves calls unanswered), is asked last; what waits for it ends
// only if that can be told from a cluster that as a whole is slow or has no leader.
type vigil struct {
	cluster *Cluster
	member  *member

	missed  int       // probes in a row without an answer
	stale   int       // probes of its service in a row without an answer
	answers uint64    // calls that it had answered when it was looked at last
	quiet   time.Time // since when there have been calls, and none was answered; or now
	useless time.Time // since when it has had no leader, or said that it doesn't serve; zero otherwise
}

// watch probes one member until ctx ends or it is retired: every HealthInterval while it
// is up, more often while it is down (which costs no traffic where nothing listens), and
// at once when a call met a failure.
func (c *Cluster) watch(ctx context.Context, m *member) {
	v := vigil{cluster: c, member: m, quiet: time.Now()}
	timer := time.NewTimer(0)
	defer timer.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-c.closed:
			return
		case <-m.gone:
			return
		case <-m.kick:
		case <-timer.C:
		}
		found, err := c.probe(ctx, m)
		if ctx.Err() != nil {
			return
		}
		v.judge(found, err)
		if err == nil {
			v.checkService(ctx)
		}
		v.checkUse(err)
		c.settle()
		timer.Reset(v.pause())
	}
}

// pause is the time until the next probe.
func (v *vigil) pause() time.Duration {
	now, interval := v.member.now(), v.cluster.opts.HealthInterval
	switch {
	case now.health != up, now.lagging:
		return interval / 4
	case v.missed > 0, v.stale > 0 && !now.stalled:
		return 0
	default:
		return interval
	}
}

// judge draws the conclusion from one probe.
func (v *vigil) judge(found finding, err error) {
	c, m := v.cluster, v.member
	if err == nil {
		v.missed = 0
		if found.told {
			c.id.Store(found.cluster)
		}
		if m.answered(found) {
			c.opts.Logger.Info("member answers", "shard", c.opts.Name, "member", m.endpoint, "version", found.version)
			if err := c.outdated(m); err != nil {
				c.opts.Logger.Error("member is too old", "error", err)
			}
		}
		return
	}
	frozen := status.Code(err) == codes.DeadlineExceeded
	if frozen {
		v.missed++
		if m.now().health == up && v.missed < probeMisses {
			return
		}
		err = fmt.Errorf("no answer to %d probes of %v", v.missed, probeTimeout)
	}
	v.stale = 0
	c.fail(m, err)
	if frozen {
		m.kill(errFrozen)
	}
}

// fail takes the member out of the choice until a probe succeeds.
func (c *Cluster) fail(m *member, err error) {
	if m.failed(err) {
		c.opts.Logger.Warn("member does not answer", "shard", c.opts.Name, "member", m.endpoint, "err", err)
	}
}

// checkService looks closer at a member whose calls are not answered, and at one that
// was found not to serve.
func (v *vigil) checkService(ctx context.Context) {
	c, m := v.cluster, v.member
	now := m.now()
	if !v.doubtful() && !now.stalled || now.leaderless() {
		v.stale = 0
		return
	}
	err := c.probeService(ctx, m)
	switch {
	case ctx.Err() != nil:
	case err == nil:
		v.stale, v.quiet = 0, time.Now()
		m.timeouts.Store(0)
		if now.stalled {
			m.change(func(c *condition) { c.stalled = false })
			c.opts.Logger.Info("member serves again", "shard", c.opts.Name, "member", m.endpoint)
		}
	case now.stalled:
	default:
		if v.stale++; v.stale >= probeMisses {
			m.change(func(c *condition) { c.stalled = true })
			c.opts.Logger.Warn("member answers probes, but serves no requests", "shard", c.opts.Name, "member", m.endpoint)
			if c.onlyOne(m) {
				m.cut(errStalled)
			}
		}
	}
}

// doubtful reports whether calls give reason to ask whether the member serves: the last one
// was not answered in time, or there are some, and none has been answered for a while.
func (v *vigil) doubtful() bool {
	m, now := v.member, time.Now()
	if answers := m.answers.Load(); answers != v.answers || m.calls.Load() == 0 {
		v.answers, v.quiet = answers, now
	}
	return m.timeouts.Load() > 0 || now.Sub(v.quiet) >= quietPeriod
}

// checkUse ends what waits on a member that has had no leader for a while, or has said so long
// that it doesn't serve, if that can be asked of another member.
func (v *vigil) checkUse(err error) {
	c, m := v.cluster, v.member
	var why error
	switch {
	case errors.As(err, &notServing{}):
		why = err
	case m.now().leaderless():
		why = errOrphan
	}
	switch {
	case why == nil:
		v.useless = time.Time{}
	case v.useless.IsZero():
		v.useless = time.Now()
	case time.Since(v.useless) >= patience && c.led(m):
		v.useless = time.Now()
		m.cut(why)
	}
}

// led reports whether a member other than m has a leader.
func (c *Cluster) led(m *member) bool {
	return slices.ContainsFunc(c.roster.Load().seats, func(s seat) bool {
		now := s.now()
		return s.member != m && now.health == up && now.told && now.leader != 0
	})
}

// onlyOne reports whether all other members that answer can serve everything, and there
// is one: then what is wrong with this one is its own, not the cluster's.
func (c *Cluster) onlyOne(m *member) bool {
	others := false
	for _, s := range c.roster.Load().seats {
		now := s.now()
		switch {
		case s.member == m || now.health != up:
		case !now.able() && !now.learner:
			return false
		default:
			others = true
		}
	}
	return others
}
