package order

import (
	"errors"
	"slices"
	"testing"

	"github.com/sharder/sharder/stages"
	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"
)

// Short ways to say what a Txn is made of.

func puts(key string, edit ...func(*pb.PutRequest)) *pb.RequestOp {
	p := &pb.PutRequest{Key: []byte(key)}
	for _, e := range edit {
		e(p)
	}
	return &pb.RequestOp{Request: &pb.RequestOp_RequestPut{RequestPut: p}}
}

func gets(key, end string) *pb.RequestOp {
	return rangeOf(&pb.RangeRequest{Key: []byte(key), RangeEnd: []byte(end)})
}

func dels(key, end string) *pb.RequestOp {
	return &pb.RequestOp{Request: &pb.RequestOp_RequestDeleteRange{
		RequestDeleteRange: &pb.DeleteRangeRequest{Key: []byte(key), RangeEnd: []byte(end)}}}
}

func all(ops ...*pb.RequestOp) *pb.TxnRequest { return &pb.TxnRequest{Success: ops} }

func when(key, end string, then ...*pb.RequestOp) *pb.TxnRequest {
	return &pb.TxnRequest{Compare: []*pb.Compare{{Key: []byte(key), RangeEnd: []byte(end)}}, Success: then}
}

func otherwise(t *pb.TxnRequest, ops ...*pb.RequestOp) *pb.TxnRequest {
	t.Failure = ops
	return t
}

func TestTxnsConflictWhereOneWritesWhatTheOtherTouches(t *testing.T) {
	for _, c := range []struct {
		name string
		a, b *pb.TxnRequest
		want bool
	}{
		{"puts of different keys", all(puts("a"), puts("c")), all(puts("b"), puts("d")), false},
		{"puts of one key", all(puts("a"), puts("c")), all(puts("b"), puts("c")), true},
		{"reads of one key", all(gets("a", ""), puts("b")), all(gets("a", ""), puts("c")), false},
		{"a read of what is put", all(gets("a", ""), puts("b")), all(puts("a")), true},
		{"a compare with what is put", when("a", "", puts("b")), all(puts("a")), true},
		{"a compare with a range that ends at what is put", when("a", "b", puts("x")), all(puts("b")), false},
		{"a compare with a range that holds what is put", when("a", "c", puts("x")), all(puts("b")), true},
		{"a delete of what is put", all(dels("a", "c")), all(puts("b")), true},
		{"a delete of what is read", all(dels("a", "c")), all(gets("b", "z")), true},
		{"deletes side by side", all(dels("a", "b")), all(dels("b", "c")), false},
		{"a delete without end", all(dels("b", "\x00")), all(puts("zz")), true},
		{"a delete without end, from behind", all(dels("b", "\x00")), all(puts("a")), false},
		{"a range with nothing in it", all(dels("c", "a")), all(puts("b")), false},
		{"a put in the branch for failure", otherwise(when("x", ""), puts("a")), all(gets("a", "")), true},
		{"a put in a nested Txn", all(txnOp(all(puts("a")))), all(gets("a", "")), true},
		{"a key and the next one", all(puts("a")), all(puts("a\x00")), false},
	} {
		a, b := touches(c.a), touches(c.b)
		if a.conflict(b) != c.want || b.conflict(a) != c.want {
			t.Errorf("%s: %v and %v, want %v", c.name, a.conflict(b), b.conflict(a), c.want)
		}
	}
}

func TestKeysWrittenTwiceInATxn(t *testing.T) {
	for _, c := range []struct {
		name    string
		txn     *pb.TxnRequest
		refused bool
	}{
		{"two keys", all(puts("a"), puts("b")), false},
		{"one key", all(puts("a"), puts("a")), true},
		{"in branches that exclude each other", otherwise(all(puts("a")), puts("a")), false},
		{"in nested ones that do", all(txnOp(otherwise(all(puts("a")), puts("a")))), false},
		{"there, and outside", all(txnOp(otherwise(all(puts("a")), puts("a"))), puts("a")), true},
		{"put and deleted", all(puts("b"), dels("a", "c")), true},
		{"put beside what is deleted", all(puts("c"), dels("a", "c")), false},
		{"deleted twice", all(dels("a", "c"), dels("b", "")), false},
		{"put, and deleted by a nested Txn", all(puts("b"), txnOp(all(dels("b", "")))), true},
		{"put by a nested Txn, and deleted by a later one", all(txnOp(all(puts("b"))), txnOp(all(dels("b", "")))), false},
		{"deleted by a nested Txn, and put by a later one", all(txnOp(all(dels("b", ""))), txnOp(all(puts("b")))), true},
		{"put, and deleted without end", all(puts("b"), dels("a", "\x00")), true},
		{"put before what is deleted without end", all(puts("a"), dels("b", "\x00")), false},
	} {
		if err := checkWrites(c.txn); errors.Is(err, rpctypes.ErrGRPCDuplicateKey) != c.refused {
			t.Errorf("%s: %v", c.name, err)
		}
	}
}

func TestTxnsThatSurelyWrite(t *testing.T) {
	for _, c := range []struct {
		name string
		txn  *pb.TxnRequest
		want bool
	}{
		{"a put", all(gets("a", ""), puts("b")), true},
		{"nothing to compare: the branch for failure does not count", otherwise(all(puts("a")), gets("a", "")), true},
		{"a put in one branch", when("a", "", puts("b")), false},
		{"a put in both", otherwise(when("a", "", puts("b")), puts("c")), true},
		{"a delete may find nothing", all(dels("a", "b")), false},
		{"a nested put", all(txnOp(all(puts("a")))), true},
		{"a nested put on a condition", all(txnOp(when("a", "", puts("a")))), false},
	} {
		if got := surelyWrites(c.txn); got != c.want {
			t.Errorf("%s: %v", c.name, got)
		}
	}
}

// lines is a table of three shards: those of keys from "a", from "b" and from "c" on, with
// the second and the third name exchanged, so that keys are not in the order of shards.
func lines(t *testing.T) *stages.Table {
	t.Helper()
	table, err := stages.NewTable([]stages.Route{
		{Shards: []string{"0"}}, {Key: []byte("b"), Shards: []string{"2"}}, {Key: []byte("c"), Shards: []string{"1"}},
	}, []*stages.Shard{{Number: 0, Name: "0"}, {Number: 1, Name: "1"}, {Number: 2, Name: "2"}})
	if err != nil {
		t.Fatal(err)
	}
	return table
}

func TestShardsOfATxn(t *testing.T) {
	table := lines(t)
	for _, c := range []struct {
		txn  *pb.TxnRequest
		want []int
	}{
		{all(), nil},
		{all(puts("b"), puts("a")), []int{0, 2}},
		{when("c", "", gets("a", "")), []int{0, 1}},
		{otherwise(all(puts("a")), dels("a", "c")), []int{0, 2}},
		{all(txnOp(when("b", "\x00"))), []int{1, 2}},
	} {
		if got := shardsOf(table, c.txn); !slices.Equal(got, c.want) {
			t.Errorf("%v: %v, want %v", c.txn, got, c.want)
		}
	}
}
