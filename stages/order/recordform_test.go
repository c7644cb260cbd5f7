package order

import (
	"errors"
	"reflect"
	"slices"
	"testing"

	"google.golang.org/protobuf/proto"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
)

var someItems = []item{
	{Txn: &pb.TxnRequest{Success: []*pb.RequestOp{putOp("a", []byte("1"))}}, Leases: []boundLease{{Lease: 7, Shard: 1, ID: 8}}},
	{Ends: []leaseEnd{{ID: 5, Shards: []int{0, 2}}}},
	{Txn: &pb.TxnRequest{}},
}

func sameItem(a, b item) bool {
	return (a.Txn == nil) == (b.Txn == nil) && proto.Equal(a.Txn, b.Txn) && reflect.DeepEqual(a.Leases, b.Leases) && reflect.DeepEqual(a.Ends, b.Ends)
}

func TestRecordsAreReadAsWritten(t *testing.T) {
	for _, items := range [][]item{nil, someItems[:1], someItems} {
		text, err := encodeItems("routes", items)
		if err != nil {
			t.Fatal(err)
		}
		routes, got, err := decodeItems(text)
		if err != nil || routes != "routes" || !slices.EqualFunc(items, got, sameItem) {
			t.Errorf("routes %q, items %v, %v", routes, got, err)
		}
	}
}

// A record that is damaged is refused and never a panic; one of a newer version is known as that.
func TestDamagedRecordsAreRefused(t *testing.T) {
	text, err := encodeItems("routes", someItems)
	if err != nil {
		t.Fatal(err)
	}
	whole := map[int]bool{} // where a record could end
	for n := range len(someItems) + 1 {
		shorter, _ := encodeItems("routes", someItems[:n])
		whole[len(shorter)] = true
	}
	for n := range text {
		if _, _, err := decodeItems(text[:n]); (err == nil) != whole[n] || err != nil && !errors.Is(err, errCorrupt) {
			t.Errorf("cut off after %d bytes: %v", n, err)
		}
	}
	if _, _, err := decodeItems([]byte{recordVersion + 1}); !errors.Is(err, ErrNewer) {
		t.Errorf("a newer one: %v", err)
	}
	if _, _, err := decodeItems([]byte{0}); !errors.Is(err, errCorrupt) {
		t.Errorf("one without a version: %v", err)
	}
}

func FuzzRecord(f *testing.F) {
	text, err := encodeItems("routes", someItems)
	if err != nil {
		f.Fatal(err)
	}
	f.Add(text)
	f.Fuzz(func(t *testing.T, text []byte) {
		routes, items, err := decodeItems(text)
		if err != nil {
			return
		}
		again, err := encodeItems(routes, items)
		if err != nil {
			t.Fatal(err)
		}
		if _, same, err := decodeItems(again); err != nil || len(same) != len(items) {
			t.Fatalf("%d items of %d: %v", len(same), len(items), err)
		}
	})
}
