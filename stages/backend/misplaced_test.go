package backend

import (
	"fmt"
	"strings"
	"testing"
	"time"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	"google.golang.org/grpc"

	"github.com/sharder/sharder/integration/etcdtest"
)

// fill puts keys in bulk.
func fill(t *testing.T, conn grpc.ClientConnInterface, keys ...string) {
	t.Helper()
	kv := pb.NewKVClient(conn)
	for len(keys) > 0 {
		n := min(len(keys), 100)
		txn := &pb.TxnRequest{}
		for _, k := range keys[:n] {
			txn.Success = append(txn.Success, &pb.RequestOp{Request: &pb.RequestOp_RequestPut{RequestPut: &pb.PutRequest{Key: []byte(k)}}})
		}
		if _, err := kv.Txn(within(t, 30*time.Second), txn); err != nil {
			t.Fatal(err)
		}
		keys = keys[n:]
	}
}

func TestAKeyInARangeOfAnotherShardIsFound(t *testing.T) {
	conn := etcdtest.Start(t).Conn()
	fill(t, conn, "\x00sharder/stamp", "\x00", "m", "x")
	between := func(key, end string) KeyRange { return KeyRange{Key: []byte(key), End: []byte(end)} }
	for _, c := range []struct {
		ranges []KeyRange
		want   string
	}{
		{nil, ""},
		{[]KeyRange{between("", "m")}, ""},
		{[]KeyRange{between("", "\x00zzz")}, ""}, // nothing but reserved keys
		{[]KeyRange{between("", "\x01")}, ""},
		{[]KeyRange{between("\x00", "n")}, "m"},
		{[]KeyRange{between("m", "n")}, "m"},
		{[]KeyRange{between("n", "x"), between("y", "")}, ""},
		{[]KeyRange{between("", "a"), between("n", "")}, "x"},
		{[]KeyRange{between("n", "\x00")}, "x"},
	} {
		got, err := Misplaced(within(t, 30*time.Second), conn, c.ranges)
		if err != nil || string(got) != c.want {
			t.Errorf("%q: %q, %v", c.ranges, got, err)
		}
	}
}

func TestAKeyThatHashesElsewhereIsFoundOnAnyPage(t *testing.T) {
	conn := etcdtest.Start(t).Conn()
	var keys []string
	for i := range 2*scanPage + 10 {
		keys = append(keys, fmt.Sprintf("h/%06d", i))
	}
	fill(t, conn, append(keys, "\x00sharder/stamp", "g", "i")...)
	seen := 0
	count := func(key []byte) bool {
		seen++
		return strings.HasPrefix(string(key), "h/")
	}
	got, err := MisplacedHash(within(t, 30*time.Second), conn, []byte("h/"), []byte("h0"), count)
	if err != nil || got != nil || seen != len(keys) {
		t.Errorf("%q, %v after %d keys of %d", got, err, seen, len(keys))
	}
	last := keys[len(keys)-1]
	got, err = MisplacedHash(within(t, 30*time.Second), conn, []byte("h/"), []byte("h0"), func(key []byte) bool { return string(key) != last })
	if err != nil || string(got) != last {
		t.Errorf("%q, %v", got, err)
	}
	got, err = MisplacedHash(within(t, 30*time.Second), conn, nil, nil, count)
	if err != nil || string(got) != "g" {
		t.Errorf("over all keys: %q, %v", got, err)
	}
	if got, err := MisplacedHash(within(t, 30*time.Second), conn, nil, []byte{0, 1}, count); got != nil || err != nil {
		t.Errorf("reserved keys only: %q, %v", got, err)
	}
}

func TestAScanGoesOnWhenItsRevisionIsCompacted(t *testing.T) {
	conn := etcdtest.Start(t).Conn()
	var keys []string
	for i := range scanPage + 10 {
		keys = append(keys, fmt.Sprintf("h/%06d", i))
	}
	fill(t, conn, keys...)
	kv, first := pb.NewKVClient(conn), true
	last := keys[len(keys)-1]
	got, err := MisplacedHash(within(t, 30*time.Second), conn, []byte("h/"), []byte("h0"), func(key []byte) bool {
		if first { // the first page is in: its revision goes
			first = false
			fill(t, conn, "z")
			r, err := kv.Range(within(t, 30*time.Second), &pb.RangeRequest{Key: []byte("z")})
			if err != nil {
				t.Fatal(err)
			}
			if _, err := kv.Compact(within(t, 30*time.Second), &pb.CompactionRequest{Revision: r.Header.Revision}); err != nil {
				t.Fatal(err)
			}
		}
		return string(key) != last
	})
	if err != nil || string(got) != last {
		t.Errorf("%q, %v", got, err)
	}
}
