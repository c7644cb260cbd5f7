package main

import (
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/sharder/sharder/stages/backend"
	"github.com/sharder/sharder/stages/order"
)

// judge compares what the clusters say with what the order log says of them, and notes
// what is not as it should be.
func (r *report) judge(stamps []backend.Stamp, known order.Status, logError error) {
	r.Complete = true
	if r.Order != nil {
		r.judgeOrder(known, logError)
	}
	for i := range r.Shards {
		s := &r.Shards[i]
		if stamps[i].Deployment != "" && r.Deployment == "" {
			r.Deployment = stamps[i].Deployment
		}
		if i < len(known.Shards) {
			s.compare(known.Shards[i], known.Genesis.Shards[i])
		}
		switch stamped := stamps[i].Deployment; {
		case s.unsure() || r.Deployment == "" || stamped == r.Deployment:
		case stamped == "":
			r.problem("shard %s has no stamp", s.Name)
		default:
			r.problem("shard %s is stamped for another deployment, %s", s.Name, stamped)
		}
		if s.Refused != "" {
			r.problem("%s", s.Refused)
		}
		r.judgeCluster("shard "+s.Name, s.clusterReport)
	}
}

// judgeOrder looks at the order cluster and its log.
func (r *report) judgeOrder(known order.Status, logError error) {
	switch {
	case known.Lost != nil:
		r.problem("the order log is refused: %v", known.Lost)
	case logError != nil:
		r.Complete = false
		r.fault(fault{quorum: true}, "the order log could not be read: %s", message(logError))
	}
	if logError == nil || r.Order.Error == "" { // else it is said already
		r.judgeCluster("order cluster", r.Order.clusterReport)
	}
}

// judgeCluster looks at what a cluster says of itself.
func (r *report) judgeCluster(name string, c clusterReport) {
	switch {
	case c.Error != "":
		r.Complete = false
		r.fault(fault{etcd: "RANGE ERROR:" + c.Error}, "%s: %s", name, strings.TrimPrefix(c.Error, name+": "))
	case c.Leader == "" && !c.Anonymous, c.ReadError == noLeader:
		r.fault(fault{etcd: "RAFT NO LEADER", quorum: true}, "%s has no leader", name)
	case c.ReadError != "":
		r.Complete = false
		r.fault(fault{etcd: "RANGE ERROR:" + c.ReadError, quorum: true}, "%s: a read is not answered: %s", name, strings.TrimPrefix(c.ReadError, name+": "))
	}
	for _, a := range c.Alarms {
		f := fault{quorum: a == noLeader}
		if _, is, ok := strings.Cut(a, "alarm:"); ok {
			f.alarm = strings.TrimSpace(is)
			f.etcd = "ALARM " + f.alarm
		}
		// How many spaces etcd prints depends on how it was built.
		r.fault(f, "%s: %s", name, strings.Join(strings.Fields(a), " "))
	}
}

// compare takes in what the order log says of the shard.
func (s *shardReport) compare(known order.ShardStatus, began order.GenesisShard) {
	s.Covered, s.Pending = known.Covered, known.Pending
	was := strconv.FormatUint(began.ClusterID, 16)
	switch {
	case known.Alarm != nil:
		s.Refused = message(known.Alarm)
	case s.unsure():
	case began.ClusterID != 0 && s.ClusterID != was:
		s.Refused = fmt.Sprintf("shard %s is the etcd cluster %s, and was %s when the deployment began", s.Name, s.ClusterID, was)
	case s.Revision < s.Covered:
		s.Refused = fmt.Sprintf("shard %s went back in time: it stands at its revision %d, and had reached %d before; was it restored from a backup?", s.Name, s.Revision, s.Covered)
	default:
		s.Lag = s.Revision - s.Covered
	}
}

// fault is what /health has to know of a problem.
type fault struct {
	etcd   string // how etcd's own /health says it; empty if it has no words for it
	alarm  string // the alarm that it is, as ?exclude names it; empty if it is none
	quorum bool   // only what needs a quorum is not served: serializable reads go on
}

func (r *report) problem(format string, args ...any) { r.fault(fault{}, format, args...) }

// fault notes a problem of which more is known.
func (r *report) fault(f fault, format string, args ...any) {
	r.Problems = append(r.Problems, fmt.Sprintf(format, args...))
	r.faults = append(r.faults, f)
}

// stuck is the age from which on a batch is a problem: alive sharders take over what makes
// no progress within a fraction of a second.
const stuck = 30 * time.Second

// addTransactions adds the batches that are open; the shards have been asked.
func (r *report) addTransactions(names []string, open []order.OpenBatch) {
	for _, b := range open {
		t := batchReport{
			ID: b.ID, Kind: "transactions", State: b.State, Items: b.Items, Behind: b.Behind, By: b.By, Opened: b.At,
			Shards: named(names, b.Shards), Left: named(names, b.Left),
		}
		if b.Items == 0 {
			t.Kind = "leases"
		}
		for _, s := range r.Shards {
			if s.Fence == b.ID && slices.Contains(t.Shards, s.Name) {
				t.Fenced = append(t.Fenced, s.Name)
			}
		}
		t.Step = t.step()
		if !b.At.IsZero() {
			age := max(0, r.Time.Sub(b.At))
			t.Age = age.Seconds()
			if age > stuck {
				r.problem("batch %d is open for %s: %s", t.ID, shortly(age), t.Step)
			}
		}
		r.Transactions = append(r.Transactions, t)
	}
}

// step says what is being done, with the names of the steps that metrics and logs have.
func (t *batchReport) step() string {
	left := strings.Join(t.Left, ", ")
	switch {
	case t.State == order.StateQueued:
		return fmt.Sprintf("%s: it waits for batch %s", order.StepOpen, numbers(t.Behind))
	case t.State == order.StateRolledBack:
		return "rolled back: to be cleared on " + left
	case t.State == order.StateDecided:
		return order.StepApply + ": to be done on " + left
	case t.Items == 0:
		return "leases end on " + left
	case len(t.Fenced) == len(t.Shards):
		return order.StepDecide + ": all shards are fenced"
	default:
		unfenced := slices.DeleteFunc(slices.Clone(t.Left), func(s string) bool { return slices.Contains(t.Fenced, s) })
		return order.StepFence + ": no fence yet on " + strings.Join(unfenced, ", ")
	}
}

func numbers(ids []int64) string {
	return strings.Trim(strings.ReplaceAll(fmt.Sprint(ids), " ", ", "), "[]")
}

func named(names []string, numbers []int) []string {
	out := make([]string, len(numbers))
	for i, n := range numbers {
		out[i] = fmt.Sprintf("number %d", n)
		if n < len(names) {
			out[i] = names[n]
		}
	}
	return out
}

// shortly is a duration as short as it is of use.
func shortly(d time.Duration) string {
	switch {
	case d < time.Second:
		return d.Round(time.Millisecond).String()
	case d < time.Minute:
		return d.Round(100 * time.Millisecond).String()
	}
	return d.Round(time.Second).String()
}
