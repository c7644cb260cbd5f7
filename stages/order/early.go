package order

import (
	"context"
	"time"

	"github.com/sharder/sharder/pipeline"
	"github.com/sharder/sharder/stages"
)

// early answers a Range of now on a log that is quiet with one wait instead of two: the
// shards are read at the newest moment that this process knows while the position of the
// log is read. If nothing has come into the log by then, that moment is now, and the
// answer counts; what a shard holds at a revision never changes, so it does not matter
// when it was read. Otherwise, or if no early answer is worth trying, done is false, and
// the Range has to be done from the beginning.
func (o *Order) early(ctx context.Context, op *stages.Op, next pipeline.Stage[*stages.Op, *stages.Reply]) (reply *stages.Reply, done bool, err error) {
	if r := op.Request.GetRequestRange(); r.Serializable || r.Revision > 0 || !o.quiet() {
		return nil, false, nil
	}
	if err := o.usable(); err != nil {
		return nil, true, err
	}
	known, read := o.Replayed(), o.reads.join()
	reply, err = next(ctx, &stages.Op{Request: op.Request, Whole: op.Whole, Cut: &known})
	now, behind := o.reached(ctx, read)
	switch {
	case behind != nil:
		return nil, true, behind
	case now.Revision != known.Revision || now.Compacted != known.Compacted || isOvertaken(err):
		return nil, false, nil
	case err == nil:
		reply.Response.GetResponseRange().Header = o.Header(now.Revision)
	}
	return reply, true, err
}

// quiet tells whether no shard has moved for a while, so that none is likely to move
// during the next read.
func (o *Order) quiet() bool {
	now := time.Since(o.started)
	for i := range o.moved {
		if now-time.Duration(o.moved[i].Load()) < youth {
			return false
		}
	}
	return true
}
