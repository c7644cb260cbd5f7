package cache_test

import (
	"context"
	"sync/atomic"

	"google.golang.org/protobuf/proto"

	"github.com/sharder/sharder/pipeline"
	"github.com/sharder/sharder/stages"
)

// counted counts the reads that go to the shard, and what they bring; each is held back
// while gate is there.
type counted struct {
	calls, bytes atomic.Int64
	gate         atomic.Pointer[chan struct{}]
}

func (c *counted) count(next pipeline.Stage[stages.Call, stages.Reply]) pipeline.Stage[stages.Call, stages.Reply] {
	return func(ctx context.Context, call stages.Call) (stages.Reply, error) {
		r, err := next(ctx, call)
		if call.Request.GetRequestRange() != nil {
			c.calls.Add(1)
			c.bytes.Add(int64(proto.Size(r.Response)))
			if r.Frame != nil {
				c.bytes.Add(int64(r.Frame.Len()))
			}
			if gate := c.gate.Load(); gate != nil {
				<-*gate
			}
		}
		return r, err
	}
}
