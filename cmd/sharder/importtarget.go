package main

import (
	"context"
	"errors"
	"fmt"
	"time"

	"google.golang.org/grpc"

	"github.com/sharder/sharder/conf"
	"github.com/sharder/sharder/importer"
	"github.com/sharder/sharder/pipeline"
	"github.com/sharder/sharder/stages"
	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
)

// startMargin is how far above the source a deployment begins if the file doesn't say:
// what the source is written until its writers are stopped has to fit in between.
const startMargin = 1_000_000

// chooseStart says where the revisions of a deployment that has not begun will begin.
func (im *importing) chooseStart(ctx context.Context, f *fleet) error {
	if im.options.Mode == importer.VerifyOnly {
		return errors.New("the deployment has not begun yet; there is nothing to compare with")
	}
	ctx, cancel := context.WithTimeout(ctx, claimTimeout)
	defer cancel()
	r, err := im.options.Source.KV.Range(ctx, &pb.RangeRequest{Key: []byte{1}, CountOnly: true})
	if err != nil {
		return fmt.Errorf("asking the source where it is: %w", err)
	}
	if f.central.first <= 1 {
		f.central.first = (r.Header.Revision/startMargin + 2) * startMargin
		fmt.Fprintf(im.stdout, "the deployment has not begun; its revisions will begin at %d, above the source's (%d). Another number is set with first_revision in [order]\n", f.central.first, r.Header.Revision)
	}
	return nil
}

// hasBegun tells whether there is an order log; then it is loaded. It waits a moment for
// clusters that have just been started.
func (f *fleet) hasBegun(ctx context.Context) (bool, error) {
	for deadline := time.Now().Add(claimTimeout); ; {
		found, err := f.readStamps(ctx)
		begun := false
		if err == nil {
			begun, err = f.begun(ctx, found)
		}
		if !outOfReach(err) || time.Now().After(deadline) {
			return begun, err
		}
		select {
		case <-time.After(claimPause):
		case <-ctx.Done():
			return false, context.Cause(ctx)
		}
	}
}

// unordered is what the shards hold before there is one order over them: Range is all
// that can be asked, and all that a dry run asks.
func (f *fleet) unordered(cfg *conf.Config) pb.KVClient {
	var shards []*stages.Shard
	for i, s := range f.shards {
		shards = append(shards, &stages.Shard{Number: i, Name: s.Name, Conn: f.clusters[i], Lane: s.Lane})
	}
	table, err := stages.NewTable(routesOf(cfg), shards)
	if err != nil {
		panic(err) // the fleet's own table was made of the same
	}
	return rangeOnly{rng: pipeline.Chain3(stages.Decoder{Reserve: true}.Range,
		pipeline.Wrap(pipeline.Chain3(stages.RouteOp(table), pipeline.Scatter(pipeline.Wrap(stages.CallShard, stages.Lane)), stages.MergeRange), stages.RetryWhole),
		stages.EncodeRange)}
}

// rangeOnly makes a client of a chain.
type rangeOnly struct {
	pb.KVClient // nil: nothing else is asked
	rng         pipeline.Stage[*pb.RangeRequest, *pb.RangeResponse]
}

// Range implements pb.KVClient.
func (r rangeOnly) Range(ctx context.Context, in *pb.RangeRequest, _ ...grpc.CallOption) (*pb.RangeResponse, error) {
	return answer(ctx, r.rng, in)
}
