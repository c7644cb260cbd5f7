package order

import (
	"encoding/json"
	"fmt"
	"strings"
	"testing"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	"go.etcd.io/etcd/api/v3/mvccpb"
)

func TestArrangementsThatAreNeeded(t *testing.T) {
	table := lines(t)
	for _, c := range []struct {
		name string
		txn  *pb.TxnRequest
		want string // in JSON
	}{
		{"puts in the order of shards", all(puts("a"), puts("c"), puts("b")), "null"},
		{"several on one shard", all(puts("a2"), puts("a1"), puts("c")), "null"},
		{"puts in another order", all(puts("b"), puts("a")), `{"ops":[{"put":3876335077},{"put":3826002220}]}`},
		{"a delete over shards in order", all(dels("a", "b")), "null"},
		{"a delete over shards that are not", all(dels("b", "d")), `{"byKey":true}`},
		{"a delete before what is on a shard below", all(dels("b", "c"), puts("a")), `{"ops":[{"key":"Yg==","end":"Yw=="},{"put":3826002220}]}`},
		{"what reads does not count", all(gets("b", ""), puts("a"), gets("c", ""), puts("b")), "null"},
	} {
		text, err := json.Marshal(arrange(table, c.txn, []bool{true}))
		if err != nil || string(text) != c.want {
			t.Errorf("%s: %s, %v", c.name, text, err)
		}
	}
}

// told gives events in words, and sorted by an arrangement as the log has it.
func told(t *testing.T, a *Arrangement, events ...string) string {
	t.Helper()
	text, err := json.Marshal(a)
	if err != nil {
		t.Fatal(err)
	}
	var stored *Arrangement
	if err := json.Unmarshal(text, &stored); err != nil {
		t.Fatal(err)
	}
	var list []*mvccpb.Event
	for _, e := range events {
		key, put := strings.CutPrefix(e, "+")
		event := &mvccpb.Event{Type: mvccpb.PUT, Kv: &mvccpb.KeyValue{Key: []byte(key)}}
		if !put {
			event.Type, event.Kv.Key = mvccpb.DELETE, []byte(key[1:])
		}
		list = append(list, event)
	}
	stored.Sort(list)
	var out []string
	for _, e := range list {
		out = append(out, map[mvccpb.Event_EventType]string{mvccpb.PUT: "+", mvccpb.DELETE: "-"}[e.Type]+string(e.Kv.Key))
	}
	return strings.Join(out, " ")
}

func TestEventsInTheOrderOfOperations(t *testing.T) {
	table := lines(t)
	txn := all(puts("b9"), dels("b", "b5"), puts("a"), dels("a", "c"), puts("c"))
	a := arrange(table, txn, []bool{true})
	for _, c := range []struct{ events, want string }{
		{"+a -a2 -a1 +c +b9 -b2 -b1 -b7", "+b9 -b1 -b2 +a -a1 -a2 -b7 +c"},
		{"+a +c", "+a +c"},
		{"-a1 -b2", "-b2 -a1"},
		{"+x +a +b9", "+b9 +a +x"}, // x was not written by it
		{"+c", "+c"},
	} {
		if got := told(t, a, strings.Fields(c.events)...); got != c.want {
			t.Errorf("%s: %s, want %s", c.events, got, c.want)
		}
	}
	if got := told(t, nil, "+b", "+a"); got != "+b +a" {
		t.Errorf("none: %s", got)
	}
	if got := told(t, &Arrangement{ByKey: true}, "-b", "-d", "-a", "-c"); got != "-a -b -c -d" {
		t.Errorf("by key: %s", got)
	}
}

// Keys whose hashes are the same are told apart by themselves.
func TestArrangementOfKeysWithOneHash(t *testing.T) {
	seen := map[uint32]string{}
	for i := 0; ; i++ {
		key := fmt.Sprint("b", i)
		other, has := seen[hashOf([]byte(key))]
		if !has {
			seen[hashOf([]byte(key))] = key
			continue
		}
		a := arrange(lines(t), all(puts(key), puts("c"), puts(other)), []bool{true})
		if got, want := told(t, a, "+c", "+"+other, "+"+key), fmt.Sprintf("+%s +c +%s", key, other); got != want {
			t.Fatalf("%s, want %s", got, want)
		}
		return
	}
}
