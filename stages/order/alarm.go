package order

import (
	"google.golang.org/grpc/codes"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
)

// raiseAlarm notes that a shard can't be trusted any more, and gives the error: nothing
// is read from or written to it until an operator has decided.
func (o *Order) raiseAlarm(shard int, format string, args ...any) error {
	name := o.opts.Shards[shard].Name
	err := refuse(codes.DataLoss, "shard %s went back in time: "+format+"; was it restored from a backup? It is refused until that is settled, see docs/operations.md", append([]any{name}, args...)...)
	if o.alarms[shard].CompareAndSwap(nil, &err) {
		o.opts.Logger.Error("a shard is refused", "shard", name, "error", err)
	}
	return *o.alarms[shard].Load()
}

// alarmed tells why a shard is refused, nil if it isn't.
func (o *Order) alarmed(shard int) error {
	if err := o.alarms[shard].Load(); err != nil {
		return *err
	}
	return nil
}

// sameCluster raises the alarm if an answer is from another cluster than the one that the
// shard was when the log began. A backup that was restored under the old addresses and
// token has the same id: that is seen by its revisions.
func (o *Order) sameCluster(shard int, h *pb.ResponseHeader) error {
	was, is := o.clusters[shard], h.GetClusterId()
	if was == is || was == 0 || is == 0 {
		return nil
	}
	return o.raiseAlarm(shard, "it answers as the cluster %x, and was the cluster %x", is, was)
}
