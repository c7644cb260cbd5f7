// Package sim holds a simulation of package order: the real Order of several sharders,
// with the real stages around it, in front of clusters and over a network that are made
// up. It has tests only; nothing imports it.
//
//	go test ./stages/order/sim                          1000 runs, and every mutant
//	SIM_RUNS=100000 go test -run Many ./stages/order/sim
//	SIM_SEED=1573 go test -run Many ./stages/order/sim  one run once more
//
// # A run
//
// A seed gives a plan (world_test.go): how many shards, sharders and clients, how bad the
// network is, what troubles there are. Everything runs inside a bubble of testing/synctest,
// in which time is made up and goes on when nobody has anything to do: a run of ten
// seconds takes as many milliseconds. Each message takes a time of its own, so answers,
// entries of the log and requests overtake each other; one may be lost, and so its call
// breaks with or without an effect, or it may arrive long after its call broke
// (network_test.go). Sharders are paused, die and are started anew; shards lose their quorum
// or go away, as does the order cluster; members lag; somebody writes past all sharders
// (trouble_test.go). Whoever carries a batch on may sleep or give up after any step. Clients
// put, delete, read, compare, compact and have leases end, on one shard and over several, at
// revisions they were told and at some that they make up (client_test.go).
//
// # What is real
//
// Order with all it runs (following the log, group commit, shared reads of the position,
// probes, checkpoints, compaction, sweeps), Pin, At, Commit, Guard, Snapshot, Await, and the
// stages decode, route, scatter, lane, call, merge and encode, chained as in cmd/sharder.
// A shard's heart is etcd's own: its store (storage/mvcc) and its functions that apply
// requests (etcdserver/txn). No test of this module stands something in for an etcd that
// can run; here none can: a whole etcd lives on real sockets and real time, and nobody
// could tell it when to answer. So the members around a shard's store are made up
// (shard_test.go), and so is the order cluster, which is an order.Journal of plain
// values (orderlog_test.go); TestTheJournalIsLikeEtcds compares that one with a real etcd.
//
// # The judge
//
// At the end all is healed. Every sharder, and one that is started only then, has to
// have everything covered within half a minute, what nobody acknowledged included. The
// judge then reads the log by its own rules and does everything once more, in the order of
// the global revisions, on one etcd store (check_test.go): every answer must be the one
// which that store gives at the revision in its header, with all revisions in it, every
// revision must have been made by one request and change the same there. A request
// nobody answered is held to its effect alone. Then real time, errors, compactions, and
// that nobody waits for ever (checktime_test.go). When all is over no batch may be left in the
// log, and no fence on a shard. These are the checks of the model, docs/model/order_model.py,
// which has two things besides: shards without space, and writes past all sharders between a
// fence and the end of its batch. Leases end here only when somebody has them end: what package
// lease does with their time is in its own tests.
//
// The judge is tested with mutants (mutants_test.go): sharders that break one rule, each of
// which it must notice. They are broken from outside. What can only be broken inside
// package order is not among them: compares translated with floor(G) for <, or with a map
// that lags behind; a cover that goes back; these the model has, and tests of package order.
//
// # What a seed repeats
//
// All chance comes from the seed, also that inside Order, and the tests run on one
// processor. What remains is what Go leaves open: which case of a select is taken
// when several are ready, in which order a context cancels its children. A run without
// troubles has the same history every time, of those with troubles nine in ten have.
// Where a seed that failed doesn't fail again, -count 50 finds it.
package sim
