package conf

import (
	"fmt"
	"strconv"
	"strings"
	"time"
)

// OrderName is what the order cluster is called where shards have their names. No
// shard can be called so.
const OrderName = "[order]"

// maxBatch is the most that BatchItems may be: all of a batch have to wait for each other.
const maxBatch = 1000

// OrderDir is the directory in [Config.DataDir] where an embedded order cluster keeps
// its data.
const OrderDir = "order"

// Order is the table [order]: the etcd cluster that holds the order of all shards'
// revisions, and no keys of clients. With it the shards have one revision; without it
// each has its own.
type Order struct {
	// Shard says where the cluster is, with the keys of a shard. Its Name is always
	// [OrderName]. Embedded, it keeps its data in [OrderDir].
	Shard
	// FirstRevision (first_revision) is the revision of the first write to a new
	// deployment, at least; what its shards hold already has no lower one either. Below 2,
	// which a new etcd begins with, it changes nothing.
	// It has no meaning for a deployment that has begun.
	FirstRevision int64
	// AutoCompaction (auto_compaction_mode, auto_compaction_retention) says what
	// sharder compacts of its own accord.
	AutoCompaction AutoCompaction
	// CommitInterval (commit_interval) is the shortest time between two appends of
	// this sharder to the order log; 0 for no pause.
	CommitInterval time.Duration
	// CheckpointEntries (checkpoint_entries) is the number of entries of the order log
	// after which its state is written down, so that a starting sharder need not read
	// them all.
	CheckpointEntries int
	// BatchItems (batch_items) is the most transactions over several shards that this
	// sharder does in one batch, behind one fence.
	BatchItems int
}

// AutoCompaction is what to keep of the history. At most one field is set; the zero
// value keeps everything until a client compacts.
type AutoCompaction struct {
	// Period is how long a revision is kept: the mode "periodic".
	Period time.Duration
	// Revisions is how many revisions are kept: the mode "revision".
	Revisions int64
}

// Off reports whether nothing is compacted of sharder's own accord.
func (a AutoCompaction) Off() bool { return a == AutoCompaction{} }

// The words of auto_compaction_mode, as etcd's flag of that name has them.
const (
	modePeriodic = "periodic"
	modeRevision = "revision"
)

// defaultOrder is an order cluster whose table is empty.
func defaultOrder() *Order {
	return &Order{Shard: DefaultShard(OrderName), FirstRevision: 1, CommitInterval: 2 * time.Millisecond, CheckpointEntries: 10_000, BatchItems: 32}
}

// orderFields are the keys of [order]: those of a shard, and its own.
func (s *schema) orderFields(o *Order) fields {
	f := s.shard(&o.Shard)
	f["first_revision"] = field{read: s.number(&o.FirstRevision, 1, maxRevision)}
	f["auto_compaction_mode"] = field{read: s.compactionMode}
	f["auto_compaction_retention"] = field{read: s.retention}
	f["commit_interval"] = field{read: s.duration(&o.CommitInterval, 0, time.Minute)}
	f["checkpoint_entries"] = field{read: s.count(&o.CheckpointEntries, 1, many)}
	f["batch_items"] = field{read: s.count(&o.BatchItems, 1, maxBatch)}
	return f
}

// order reads [order].
func (s *schema) order(n *node) {
	s.c.Order, s.ordering = defaultOrder(), n
	s.walk(n, s.orderFields(s.c.Order))
	s.readAutoCompaction(n, &s.c.Order.AutoCompaction)
}

// compactionMode checks the word alone; what it means with the retention is said by
// readAutoCompaction.
func (s *schema) compactionMode(n *node) {
	if v, ok := s.str(n, n.value, `"periodic" or "revision"`); ok && v != modePeriodic && v != modeRevision {
		s.wrong(n, fmt.Sprintf("%q is not a way to compact", v), `write "periodic" or "revision"`)
	}
}

// retention checks only that there is a string.
func (s *schema) retention(n *node) {
	s.str(n, n.value, `a time to keep such as "1h", or with the mode "revision" a number such as "1000"`)
}

// readAutoCompaction takes mode and retention together, as etcd does: a bare number
// counts hours or revisions, whichever the mode says; the mode is periodic by default.
func (s *schema) readAutoCompaction(table *node, to *AutoCompaction) {
	mode, n := modePeriodic, table.kid("auto_compaction_retention")
	if m := table.kid("auto_compaction_mode"); m != nil {
		if mode, _ = m.value.(string); n == nil {
			s.wrong(m, "nothing says how much to keep", `write auto_compaction_retention = "1h", or take the mode out`)
			return
		}
	}
	if n == nil {
		return
	}
	text, ok := n.value.(string)
	if !ok || text == "" {
		return // told already
	}
	switch mode {
	case modePeriodic:
		to.Period = s.retentionPeriod(n, text)
	case modeRevision:
		to.Revisions = s.retentionRevisions(n, text)
	}
}

// retentionPeriod reads how long to keep.
func (s *schema) retentionPeriod(n *node, text string) time.Duration {
	const remedy = `write a time from "1s" to "8760h", such as "1h" or "10m"; "0" is never`
	var d time.Duration
	if hours, err := strconv.ParseUint(text, 10, 16); err == nil {
		d = time.Duration(hours) * time.Hour
	} else if d, err = time.ParseDuration(text); err != nil {
		s.wrong(n, fmt.Sprintf("%q is not a time", text), remedy)
		return 0
	}
	if d != 0 && (d < time.Second || d > maxPeriod) {
		s.wrong(n, fmt.Sprintf("%q is out of bounds", text), remedy)
		return 0
	}
	return d
}

// retentionRevisions reads how many to keep.
func (s *schema) retentionRevisions(n *node, text string) int64 {
	const remedy = `write a whole number such as "1000"; "0" is never`
	v, err := strconv.ParseInt(text, 10, 64)
	switch {
	case err != nil && strings.Trim(text, "0123456789") != "":
		s.wrong(n, fmt.Sprintf("%q is not a number of revisions", text), remedy+`; a time to keep needs the mode "periodic"`)
	case err != nil || v < 0 || v > maxRevision:
		s.wrong(n, fmt.Sprintf("%q is out of bounds", text), remedy)
	default:
		return v
	}
	return 0
}

// checkOrder checks what no single value of [order] shows.
func (s *schema) checkOrder(homeless bool) {
	o, n := s.c.Order, s.ordering
	if o.Embedded {
		s.checkEmbedded(n, homeless, "the order cluster")
	} else {
		s.checkExternal(&o.Shard, n, "the order cluster")
	}
	for i, sh := range s.c.Shards {
		if o.Embedded && sh.Embedded && strings.EqualFold(sh.Name, OrderDir) {
			s.wrong(s.nodes[i], fmt.Sprintf("the order cluster is embedded and keeps its data where this shard would, in the directory %q", OrderDir),
				"give the shard another name")
		}
	}
}
