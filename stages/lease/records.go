package lease

import (
	"encoding/json"
	"fmt"
	"strconv"
	"strings"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	"go.etcd.io/etcd/api/v3/mvccpb"
)

// The keys of the records on the home shard. Ids are written as sixteen hex
// digits, so that they sort and have one spelling.
const (
	recordPrefix = "\x00sharder/lease/"
	markerPrefix = recordPrefix + "marker/"
	tickPrefix   = recordPrefix + "tick/"
	attachPrefix = recordPrefix + "attach/"
	aliasPrefix  = recordPrefix + "alias/"
)

func hexID(id int64) string { return fmt.Sprintf("%016x", uint64(id)) }

func markerKey(id int64) []byte { return []byte(markerPrefix + hexID(id)) }
func tickKey(id int64) []byte   { return []byte(tickPrefix + hexID(id)) }
func aliasKey(id int64) []byte  { return []byte(aliasPrefix + hexID(id)) }

// attachKey is the record that says: this shard may hold keys of the lease.
func attachKey(id int64, shard string) []byte {
	return []byte(attachPrefix + hexID(id) + "/" + shard)
}

// prefixEnd is the range_end of all keys that begin with prefix.
func prefixEnd(prefix string) []byte {
	end := []byte(prefix)
	end[len(end)-1]++ // no prefix of ours ends in 0xff
	return end
}

// idOf reads the id out of a record's key; rest is what follows it.
func idOf(key []byte, prefix string) (id int64, rest string, ok bool) {
	s, ok := strings.CutPrefix(string(key), prefix)
	if !ok || len(s) < 16 {
		return 0, "", false
	}
	u, err := strconv.ParseUint(s[:16], 16, 64)
	return int64(u), s[16:], err == nil
}

// record is a lease as its marker tells it. It never changes: born, the create
// revision of the marker, tells one lease from the next with the same client id.
type record struct {
	id      int64 // what clients call it
	shardID int64 // what the shards call it
	ttl     int64 // granted, in seconds
	born    int64
}

// markerValue is the value of a marker.
type markerValue struct {
	ShardID int64 `json:"shard_id"`
	TTL     int64 `json:"ttl"`
}

func (r record) marker() []byte {
	v, _ := json.Marshal(markerValue{ShardID: r.shardID, TTL: r.ttl}) // two numbers: can't fail
	return v
}

// parseMarker reads a marker.
func parseMarker(kv *mvccpb.KeyValue) (record, error) {
	id, _, ok := idOf(kv.Key, markerPrefix)
	var v markerValue
	if err := json.Unmarshal(kv.Value, &v); !ok || err != nil || v.ShardID == 0 {
		return record{}, fmt.Errorf("record %q holds %q, which is no lease marker", kv.Key, kv.Value)
	}
	return record{id: id, shardID: v.ShardID, ttl: v.TTL, born: kv.CreateRevision}, nil
}

// parseAlias reads an alias record: the id on the shards and the client's.
func parseAlias(kv *mvccpb.KeyValue) (shardID, id int64, ok bool) {
	shardID, _, ok = idOf(kv.Key, aliasPrefix)
	if !ok {
		return 0, 0, false
	}
	u, err := strconv.ParseUint(string(kv.Value), 16, 64)
	return shardID, int64(u), err == nil
}

// Shorthands for the parts of the Txns at home.

func opRange(r *pb.RangeRequest) *pb.RequestOp {
	return &pb.RequestOp{Request: &pb.RequestOp_RequestRange{RequestRange: r}}
}

func opPut(key, value []byte, lease int64) *pb.RequestOp {
	return &pb.RequestOp{Request: &pb.RequestOp_RequestPut{RequestPut: &pb.PutRequest{Key: key, Value: value, Lease: lease}}}
}

func opDelete(key, end []byte) *pb.RequestOp {
	return &pb.RequestOp{Request: &pb.RequestOp_RequestDeleteRange{
		RequestDeleteRange: &pb.DeleteRangeRequest{Key: key, RangeEnd: end}}}
}

// exists and absent compare on the version, which is 0 for a key that is not there.
func exists(key []byte) *pb.Compare {
	return &pb.Compare{Key: key, Target: pb.Compare_VERSION, Result: pb.Compare_GREATER,
		TargetUnion: &pb.Compare_Version{Version: 0}}
}

func absent(key []byte) *pb.Compare {
	return &pb.Compare{Key: key, Target: pb.Compare_VERSION, Result: pb.Compare_EQUAL,
		TargetUnion: &pb.Compare_Version{Version: 0}}
}

// bornAt compares the incarnation.
func bornAt(key []byte, revision int64) *pb.Compare {
	return &pb.Compare{Key: key, Target: pb.Compare_CREATE, Result: pb.Compare_EQUAL,
		TargetUnion: &pb.Compare_CreateRevision{CreateRevision: revision}}
}
