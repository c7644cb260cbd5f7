package order_test

import (
	"bytes"
	"context"
	"fmt"
	"maps"
	"testing"

	"github.com/sharder/sharder/integration/etcdtest"
	"github.com/sharder/sharder/stages/order"
)

// A record is there with the entry that opens, in as many pieces as it takes, until it is dropped.
func TestRecordsAreKeptInPieces(t *testing.T) {
	t.Parallel()
	e := etcdtest.Start(t)
	j := order.NewEtcd(e.Conn())
	large := bytes.Repeat([]byte("0123456789abcdef"), 40<<10) // 640 KiB
	records := map[string][]byte{"small": []byte("x"), "large": large, "full": large[:256<<10]}
	until := map[string]int64{"small": 5, "large": 9, "full": 12}
	var last int64
	for nonce, record := range records {
		pos, err := j.Open(t.Context(), []byte("entry of "+nonce), until[nonce], nonce, record)
		if err != nil || pos <= last {
			t.Fatalf("position %d after %d: %v", pos, last, err)
		}
		last = pos
	}
	for nonce, record := range records {
		got, err := j.LoadRecord(t.Context(), until[nonce], nonce)
		if err != nil || !bytes.Equal(got, record) {
			t.Errorf("%s: %d bytes of %d, %v", nonce, len(got), len(record), err)
		}
		if got, err := j.LoadRecord(t.Context(), until[nonce]+1, nonce); got != nil || err != nil {
			t.Errorf("one that is not there: %d bytes, %v", len(got), err)
		}
	}
	for number, want := range map[int64]map[string]int64{5: {}, 6: {"small": 5}, 12: {"small": 5, "large": 9}, 100: until} {
		if old, err := j.OldRecords(t.Context(), number); err != nil || !maps.Equal(old, want) {
			t.Errorf("of a log with %d entries: %v, %v", number, old, err)
		}
	}
	for range 2 {
		if err := j.DropRecord(t.Context(), 9, "large"); err != nil {
			t.Fatal(err)
		}
	}
	if old, err := j.OldRecords(t.Context(), 100); err != nil || len(old) != 2 {
		t.Errorf("after one was dropped: %v, %v", old, err)
	}
	var entries []string
	_ = j.Follow(t.Context(), 0, func(r order.Record) error {
		if entries = append(entries, string(r.Entry)); len(entries) == len(records) {
			return context.Canceled
		}
		return nil
	})
	if len(entries) != 3 {
		t.Error(fmt.Sprint(entries))
	}
}
