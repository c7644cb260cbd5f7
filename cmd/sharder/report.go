package main

import (
	"time"
)

// report is how a deployment does at one moment: what /status answers, and what sharder
// status prints. Numbers that nobody could be asked for are 0, and Problems says why.
type report struct {
	Time       time.Time     `json:"time"`
	From       string        `json:"from"` // who asked: a running sharder, or sharder status itself
	Deployment string        `json:"deployment,omitempty"`
	Order      *orderReport  `json:"order,omitempty"` // nil without [order]
	Shards     []shardReport `json:"shards"`
	// Transactions are the batches over several shards that are not finished, oldest first.
	Transactions []batchReport `json:"transactions"`
	// Problems is what is not as it should be, in words; empty if all is well.
	Problems []string `json:"problems"`
	faults   []fault  // of each of Problems
	// Complete tells that everybody could be asked.
	Complete bool `json:"complete"`
}

// orderReport is the order log and its cluster.
type orderReport struct {
	clusterReport
	Known     bool  `json:"known"`    // the log has been read; else the numbers below are 0
	Revision  int64 `json:"revision"` // the newest global one
	Compacted int64 `json:"compacted"`
	Position  int64 `json:"position"` // of the newest entry
	Entries   int64 `json:"entries"`
	Runs      int   `json:"runs"`
}

// clusterReport is what an etcd cluster says of itself.
type clusterReport struct {
	ClusterID   string   `json:"cluster_id,omitempty"`
	Version     string   `json:"version,omitempty"`
	Leader      string   `json:"leader,omitempty"` // the member's id; empty if there is none
	DBSize      int64    `json:"db_size"`
	DBSizeInUse int64    `json:"db_size_in_use"`
	DBSizeQuota int64    `json:"db_size_quota,omitempty"`
	Alarms      []string `json:"alarms,omitempty"` // and other errors, in etcd's words
	Error       string   `json:"error,omitempty"`  // why it could not be asked
	// ReadError is why a linearizable read was not answered; empty if it was.
	ReadError string `json:"read_error,omitempty"`
	// Anonymous tells that it is well and says nothing more to who has no user there.
	Anonymous bool `json:"anonymous,omitempty"`
}

// shardReport is one shard.
type shardReport struct {
	Name string `json:"name"`
	clusterReport
	Revision int64 `json:"revision"` // its own
	// Covered is its own revision up to which everything has a global one, and Lag how
	// many are still without; what was written while this was asked is among them.
	Covered int64 `json:"covered,omitempty"`
	Lag     int64 `json:"lag"`
	// Pending is the first global revision that is given out and not there yet; 0 if none.
	Pending int64  `json:"pending,omitempty"`
	Fence   int64  `json:"fence,omitempty"`  // the batch that keeps other writes away; 0 if none
	Closed  int64  `json:"closed,omitempty"` // the newest batch that is done here
	Refused string `json:"refused,omitempty"`
}

// batchReport is a batch of transactions that is not finished.
type batchReport struct {
	ID     int64     `json:"id"`
	Kind   string    `json:"kind"`  // "transactions", or "leases" for a pin under which leases end
	State  string    `json:"state"` // queued, active, decided or rolled_back
	Step   string    `json:"step"`  // what is being done, in words
	Items  int       `json:"items"`
	Shards []string  `json:"shards"`
	Left   []string  `json:"left"`             // those that it is not done with
	Fenced []string  `json:"fenced,omitempty"` // those where its fence stands
	Behind []int64   `json:"behind,omitempty"` // the batches that it waits for
	By     string    `json:"by,omitempty"`     // the coordinator: who opened it
	Opened time.Time `json:"opened,omitzero"`  // by the coordinator's clock
	Age    float64   `json:"age_seconds,omitempty"`
}
