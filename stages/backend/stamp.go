package backend

import (
	"context"
	"crypto/rand"
	"encoding/hex"
	"encoding/json"
	"fmt"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	"google.golang.org/grpc"

	"github.com/sharder/sharder/stages"
)

// stampKey is where a shard carries its stamp. Clients can't name it.
const stampKey = stages.StampKey

// stampVersion is the form of the stamp this code writes and understands.
const stampVersion = 1

// Stamp says what a shard is used for. It is written once, when the shard is first
// used, and compared at every start, so that two sharders with different files can
// never both serve.
type Stamp struct {
	// Deployment is the id all shards of one deployment share.
	Deployment string `json:"deployment"`
	// Shard is the shard's name in the configuration.
	Shard string `json:"shard"`
	// Fingerprint identifies the routes; it alone decides whether they are the same.
	Fingerprint string `json:"fingerprint"`
	// Routes are the routes in words, one line each, for people.
	Routes []string `json:"routes"`
	// Home is the name of the shard where leases live; with one order over all shards
	// that is the order cluster, [stages.OrderName], which is stamped like a shard.
	Home string `json:"home"`
	// Shards are the names of all shards by number, for people; only with one order.
	Shards []string `json:"shards,omitempty"`
}

// ordered reports whether the deployment has one order over all shards.
func (s Stamp) ordered() bool { return s.Home == stages.OrderName }

// storedStamp is the stamp as it is written.
type storedStamp struct {
	Version int `json:"version"`
	Stamp
}

// CheckStamp writes the stamp if the shard has none, and gives the one it has. A
// stamp that says something else than want is a *StampMismatch (got is set then,
// too). It may be repeated after any error: the stamp is only ever created.
//
// With one order over all shards, a shard gets the other keys of its own in the same
// transaction, so that one revision is all that is sharder's.
func CheckStamp(ctx context.Context, conn grpc.ClientConnInterface, want Stamp) (got Stamp, err error) {
	text, err := json.Marshal(storedStamp{Version: stampVersion, Stamp: want})
	if err != nil {
		return Stamp{}, fmt.Errorf("sharder: %s: stamp: %w", calling(want.Shard), err)
	}
	// In one transaction: whoever comes first creates, everybody reads the same.
	reply, err := pb.NewKVClient(conn).Txn(ctx, &pb.TxnRequest{
		Compare: []*pb.Compare{{
			Key: []byte(stampKey), Target: pb.Compare_CREATE, Result: pb.Compare_EQUAL,
			TargetUnion: &pb.Compare_CreateRevision{CreateRevision: 0},
		}},
		Success: append(want.puts(text),
			&pb.RequestOp{Request: &pb.RequestOp_RequestRange{RequestRange: &pb.RangeRequest{Key: []byte(stampKey)}}}),
		Failure: []*pb.RequestOp{
			{Request: &pb.RequestOp_RequestRange{RequestRange: &pb.RangeRequest{Key: []byte(stampKey)}}},
		},
	})
	if err != nil {
		return Stamp{}, fmt.Errorf("sharder: %s: reading its stamp: %w", calling(want.Shard), err)
	}
	last := reply.Responses[len(reply.Responses)-1].GetResponseRange()
	if len(last.GetKvs()) != 1 {
		return Stamp{}, fmt.Errorf("sharder: %s: its stamp can't be read back", calling(want.Shard))
	}
	got, err = parseStamp(want.Shard, last.Kvs[0].Value)
	if err != nil {
		return Stamp{}, err
	}
	if differs(got, want) {
		return got, &StampMismatch{Shard: want.Shard, Got: got, Want: want}
	}
	return got, nil
}

// puts are the writes that stamp a shard.
func (s Stamp) puts(text []byte) []*pb.RequestOp {
	put := func(key string, value []byte) *pb.RequestOp {
		return &pb.RequestOp{Request: &pb.RequestOp_RequestPut{RequestPut: &pb.PutRequest{Key: []byte(key), Value: value}}}
	}
	all := []*pb.RequestOp{put(stampKey, text)}
	if s.ordered() && s.Shard != stages.OrderName {
		all = append(all, put(stages.RoutesKey, []byte(s.Fingerprint)), put(stages.ClosedKey, []byte(stages.NoneClosed)))
	}
	return all
}

// readStamp gives the stamp of a shard, if it has one.
func readStamp(ctx context.Context, conn grpc.ClientConnInterface, shard string) (Stamp, bool, error) {
	reply, err := pb.NewKVClient(conn).Range(ctx, &pb.RangeRequest{Key: []byte(stampKey)})
	if err != nil {
		return Stamp{}, false, fmt.Errorf("sharder: %s: reading its stamp: %w", calling(shard), err)
	}
	if len(reply.Kvs) == 0 {
		return Stamp{}, false, nil
	}
	s, err := parseStamp(shard, reply.Kvs[0].Value)
	return s, err == nil, err
}

// parseStamp reads what is stored under the stamp's key.
func parseStamp(shard string, text []byte) (Stamp, error) {
	var s storedStamp
	if err := json.Unmarshal(text, &s); err != nil {
		return Stamp{}, fmt.Errorf("sharder: %s: the key %q holds no stamp of sharder's: %w", calling(shard), stampKey, err)
	}
	if s.Version != stampVersion {
		return Stamp{}, fmt.Errorf("sharder: %s: its stamp has version %d, this sharder knows version %d; start a sharder that is as new as the one that wrote it", calling(shard), s.Version, stampVersion)
	}
	return s.Stamp, nil
}

// Deployment gives the id the shards (in the order of the configuration) already
// carry, or a fresh random one if none of them has been used yet. Shards of two
// deployments are an error.
//
// Two sharders that start on fresh shards at once get two ids; [Claim] settles which
// one holds.
func Deployment(ctx context.Context, conns []grpc.ClientConnInterface) (string, error) {
	var found Stamp
	for i, conn := range conns {
		s, ok, err := readStamp(ctx, conn, fmt.Sprintf("number %d", i))
		switch {
		case err != nil:
			return "", err
		case !ok:
		case found.Deployment == "":
			found = s
		case s.Deployment != found.Deployment:
			return "", fmt.Errorf("sharder: these shards belong to two deployments: the one stamped %q to %s, the one stamped %q to %s; point each at the etcd cluster it was created on",
				found.Shard, found.Deployment, s.Shard, s.Deployment)
		}
	}
	if found.Deployment != "" {
		return found.Deployment, nil
	}
	id := make([]byte, 16)
	if _, err := rand.Read(id); err != nil {
		return "", fmt.Errorf("sharder: making a deployment id: %w", err)
	}
	return hex.EncodeToString(id), nil
}
