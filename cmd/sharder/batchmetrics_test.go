package main

import (
	"encoding/binary"
	"encoding/json"
	"fmt"
	"strings"
	"testing"
	"time"

	"google.golang.org/protobuf/proto"

	"github.com/sharder/sharder/integration/etcdtest"
	"github.com/sharder/sharder/stages"
	"github.com/sharder/sharder/stages/order"
	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	clientv3 "go.etcd.io/etcd/client/v3"
)

// serves waits until /metrics has a line.
func serves(t *testing.T, address string, lines ...string) {
	t.Helper()
	for _, line := range lines {
		within(t, time.Minute, func() error {
			code, body := fetch(address, "/metrics")
			if code == 200 && strings.Contains(body, line+"\n") {
				return nil
			}
			name, _, _ := strings.Cut(line, " ")
			_, rest, _ := strings.Cut(body, "\n"+name+" ")
			have, _, _ := strings.Cut(rest, "\n")
			return fmt.Errorf("%d: want %s, have %q", code, line, have)
		})
	}
}

func TestTransactionsOverShardsAreCounted(t *testing.T) {
	t.Parallel()
	log, a, b := clusters(t)
	toml := underOrder(log, a, b)
	r, address := withSite(t, toml)
	c := r.client()
	putAt(t, c, "a")
	write := []clientv3.Op{clientv3.OpPut("a", "1"), clientv3.OpPut("z", "1")}
	if _, err := c.Txn(t.Context()).Then(write...).Commit(); err != nil {
		t.Fatal(err)
	}
	never := clientv3.Compare(clientv3.Value("a"), "=", "another")
	if resp, err := c.Txn(t.Context()).If(never).Then(write...).Commit(); err != nil || resp.Succeeded {
		t.Fatalf("%v, %v", resp, err)
	}
	b.Stop()
	serves(t, address, `sharder_shard_healthy{shard="b"} 0`)
	if _, err := c.Txn(t.Context()).Then(write...).Commit(); err == nil {
		t.Error("a transaction on a shard that is away succeeds")
	}
	serves(t, address, `sharder_transactions_total{outcome="rolled_back"} 1`,
		`sharder_transactions_total{outcome="committed"} 1`, `sharder_transactions_total{outcome="aborted"} 1`, `sharder_transaction_duration_seconds_count 3`,
		`sharder_batch_items_sum 1`, `sharder_takeovers_total 0`,
		`sharder_batch_step_duration_seconds_count{step="open"} 1`, `sharder_batch_step_duration_seconds_count{step="decide"} 1`,
		`sharder_batch_step_duration_seconds_count{step="apply"} 2`,
		`sharder_batches_open{state="active"} 0`, `sharder_batches_open{state="decided"} 0`,
	)
}

// record is what a sharder keeps of a batch with one Txn, under the routes of a shard;
// stages/order/record.go.
func record(t *testing.T, shard *etcdtest.Etcd, txn *pb.TxnRequest) []byte {
	t.Helper()
	routes, err := shard.Client().Get(t.Context(), stages.RoutesKey)
	if err != nil || len(routes.Kvs) != 1 {
		t.Fatal(routes, err)
	}
	text, err := proto.Marshal(txn)
	if err != nil {
		t.Fatal(err)
	}
	r := binary.AppendUvarint([]byte{1}, uint64(len(routes.Kvs[0].Value)))
	r = binary.AppendUvarint(append(r, routes.Kvs[0].Value...), uint64(len(text)))
	r = append(r, text...)
	return append(binary.AppendUvarint(r, 2), "{}"...)
}

func putOn(key string) *pb.RequestOp {
	return &pb.RequestOp{Request: &pb.RequestOp_RequestPut{RequestPut: &pb.PutRequest{Key: []byte(key), Value: []byte("left")}}}
}

// leave has a coordinator open a batch that puts a and z, and die.
func leave(t *testing.T, log, shard *etcdtest.Etcd) {
	t.Helper()
	open := order.Open{Nonce: "left", Until: 1000, Shards: []int{0, 1}, Items: 1, By: "host-7:2379", At: time.Now().UnixMilli()}
	text, err := json.Marshal(open)
	if err != nil {
		t.Fatal(err)
	}
	txn := &pb.TxnRequest{Success: []*pb.RequestOp{putOn("a"), putOn("z")}}
	if _, err := order.NewEtcd(log.Conn()).Open(t.Context(), append([]byte{2, 4}, text...), open.Until, open.Nonce, record(t, shard, txn)); err != nil {
		t.Fatal(err)
	}
}

func TestATakeoverIsCountedAndStatusSeesTheEnd(t *testing.T) {
	t.Parallel()
	log, a, b := clusters(t)
	toml := underOrder(log, a, b)
	ranOnce(t, toml, "a")
	leave(t, log, a)
	if r := reported(t, 0, toml); len(r.Transactions) != 1 || r.Transactions[0].State != order.StateActive || r.Transactions[0].Step != "fence: no fence yet on a, b" {
		t.Fatalf("%+v", r.Transactions)
	}
	run, address := withSite(t, toml)
	within(t, 30*time.Second, func() error {
		g, err := run.client().Get(t.Context(), "z")
		if err == nil && (g.Count != 1 || string(g.Kvs[0].Value) != "left") {
			err = fmt.Errorf("%v", g)
		}
		return err
	})
	serves(t, address, `sharder_batches_open{state="decided"} 0`, `sharder_transactions_total{outcome="committed"} 0`)
	if n := metric(t, address, "sharder_takeovers_total"); n < 1 { // more if a try of it failed
		t.Errorf("%d takeovers", n)
	}
	if log := run.log.String(); !strings.Contains(log, "taking over a transaction") || !strings.Contains(log, "coordinator=host-7:2379") {
		t.Errorf("it logged\n%s", log)
	}
	within(t, 30*time.Second, func() error { // what was done last on a shard is in the log a moment later
		r := reported(t, 0, toml)
		if len(r.Transactions) != 0 || len(r.Problems) != 0 || r.Order.Revision != 3 || r.Shards[0].Closed == 0 || r.Shards[0].Closed != r.Shards[1].Closed || r.Shards[0].Lag != 0 {
			return fmt.Errorf("%+v", r)
		}
		return nil
	})
}
