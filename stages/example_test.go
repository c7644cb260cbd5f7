package stages_test

import (
	"bytes"
	"context"
	"fmt"
	"log"
	"os"
	"strings"

	"google.golang.org/protobuf/proto"

	"github.com/sharder/sharder/pipeline"
	"github.com/sharder/sharder/stages"
	"github.com/sharder/sharder/stages/backend"
	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
)

// exampleShards starts two real etcds; a program would open the clusters it has.
func exampleShards() (shards []*stages.Shard, stop func()) {
	dir, err := os.MkdirTemp("", "sharder-example")
	if err != nil {
		log.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	stops := []func(){func() { _ = os.RemoveAll(dir) }, cancel}
	for i, name := range []string{"left", "right"} {
		etcd, err := backend.StartEmbedded(backend.EmbeddedOptions{Name: name, Dir: dir + "/" + name})
		if err != nil {
			log.Fatal(err)
		}
		cluster, err := backend.Open(backend.Options{Name: name, Endpoints: []string{etcd.Endpoint()}})
		if err != nil {
			log.Fatal(err)
		}
		watched := make(chan struct{})
		go func() { defer close(watched); _ = cluster.Run(ctx) }()
		stops = append(stops, func() { <-watched; _ = cluster.Close(); _ = etcd.Close() })
		shards = append(shards, &stages.Shard{Number: i, Name: name, Conn: cluster, Lane: pipeline.NewLink(64, 64)})
	}
	return shards, func() {
		for _, s := range stops[1:] {
			s()
		}
		stops[0]()
	}
}

// tenant keeps one tenant's keys under a prefix of its own: put in front on the way
// in, taken off on the way out. It decorates everything from route to gather, so it is
// the same for every kind of request.
func tenant(prefix string) pipeline.Middleware[*stages.Op, *stages.Reply] {
	return func(next pipeline.Stage[*stages.Op, *stages.Reply]) pipeline.Stage[*stages.Op, *stages.Reply] {
		return func(ctx context.Context, op *stages.Op) (*stages.Reply, error) {
			mine := &stages.Op{Request: proto.CloneOf(op.Request), Whole: op.Whole}
			if r := mine.Request.GetRequestRange(); r != nil {
				r.Key = append([]byte(prefix), r.Key...)
				if len(r.RangeEnd) > 0 {
					r.RangeEnd = append([]byte(prefix), r.RangeEnd...)
				}
			}
			if p := mine.Request.GetRequestPut(); p != nil {
				p.Key = append([]byte(prefix), p.Key...)
			}
			reply, err := next(ctx, mine)
			if err == nil {
				for _, kv := range reply.Response.GetResponseRange().GetKvs() {
					kv.Key = bytes.TrimPrefix(kv.Key, []byte(prefix))
				}
			}
			return reply, err
		}
	}
}

// audit says what is asked of which shard.
func audit(next pipeline.Stage[stages.Call, stages.Reply]) pipeline.Stage[stages.Call, stages.Reply] {
	return func(ctx context.Context, c stages.Call) (stages.Reply, error) {
		kind, _, _ := strings.Cut(strings.TrimPrefix(c.Request.String(), "request_"), ":")
		fmt.Printf("%s: %s\n", c.Shard.Name, kind)
		return next(ctx, c)
	}
}

// Decorate a stock chain: a tenant's prefix around routing, an audit log around the
// calls to the shards.
func Example_decorate() {
	shards, stop := exampleShards()
	defer stop()
	table, err := stages.NewTable([]stages.Route{
		{Key: nil, Shards: []string{"left"}},
		{Key: []byte("m"), Shards: []string{"right"}},
	}, shards)
	if err != nil {
		log.Fatal(err)
	}

	call := pipeline.Wrap(stages.CallShard, audit, stages.Lane)
	keys := pipeline.Wrap(
		pipeline.Chain3(stages.RouteOp(table), pipeline.Scatter(call), stages.Gather),
		tenant("acme/"),
	)
	put := pipeline.Chain3(stages.Decoder{}.Put, keys, stages.EncodePut)
	get := pipeline.Chain3(stages.Decoder{}.Range, keys, stages.EncodeRange)

	ctx := context.Background()
	if _, err := put(ctx, &pb.PutRequest{Key: []byte("zoo"), Value: []byte("1")}); err != nil {
		log.Fatal(err)
	}
	r, err := get(ctx, &pb.RangeRequest{Key: []byte("zoo")})
	if err != nil {
		log.Fatal(err)
	}
	fmt.Printf("%s=%s\n", r.Kvs[0].Key, r.Kvs[0].Value)
	// Output:
	// left: put
	// left: range
	// zoo=1
}

// Replace a stage: a router of one's own, here one that sends every request to the
// shard that the length of the key chooses.
func Example_replace() {
	shards, stop := exampleShards()
	defer stop()

	byLength := func(_ context.Context, op *stages.Op) ([]stages.Call, error) {
		key := op.Request.GetRequestPut().GetKey()
		return []stages.Call{{Op: op, Shard: shards[len(key)%len(shards)], Request: op.Request}}, nil
	}
	put := pipeline.Chain5(
		stages.Decoder{}.Put,
		byLength,
		pipeline.Scatter(pipeline.Wrap(stages.CallShard, audit, stages.Lane)),
		stages.Gather,
		stages.EncodePut,
	)
	for _, key := range []string{"one", "four"} {
		if _, err := put(context.Background(), &pb.PutRequest{Key: []byte(key)}); err != nil {
			log.Fatal(err)
		}
	}
	// Output:
	// right: put
	// left: put
}

// Build a chain of one's own from the same pieces: how many keys each shard holds.
func Example_build() {
	shards, stop := exampleShards()
	defer stop()
	ctx := context.Background()

	count := func(ctx context.Context, s *stages.Shard) (string, error) {
		r, err := pb.NewKVClient(s.Conn).Range(ctx, &pb.RangeRequest{Key: []byte{0}, RangeEnd: []byte{0}, CountOnly: true})
		return fmt.Sprintf("%s: %d", s.Name, r.GetCount()), err
	}
	report := func(_ context.Context, lines []string) (string, error) { return strings.Join(lines, ", "), nil }
	sizes := pipeline.Then(pipeline.Scatter(count), report)

	for i := range 3 {
		_, err := pb.NewKVClient(shards[1].Conn).Put(ctx, &pb.PutRequest{Key: fmt.Append(nil, i)})
		if err != nil {
			log.Fatal(err)
		}
	}
	text, err := sizes(ctx, shards)
	if err != nil {
		log.Fatal(err)
	}
	fmt.Println(text)
	// Output: left: 0, right: 3
}
