package main

import (
	"context"
	"fmt"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
)

// orderLogKey is the key whose versions are the entries of the order log
// (docs/order-log.md). Here it is asked for past sharder, at the order etcd itself.
const orderLogKey = "\x00sharder/order/log"

// rangesServed counts the reads that an etcd has answered.
const rangesServed = `grpc_server_handled_total{grpc_code="OK",grpc_method="Range"`

// orderLoad is what the etcd that holds the order has been asked for until some time.
type orderLoad struct {
	at            time.Time
	entries, read float64
	known         bool
}

// orderLoad reads it; of a target without an order it is unknown.
func (t *target) orderLoad(ctx context.Context) (orderLoad, error) {
	if t.order == nil {
		return orderLoad{}, nil
	}
	conn, err := grpc.NewClient("passthrough:///"+t.order.addr,
		grpc.WithTransportCredentials(insecure.NewCredentials()), grpc.WithNoProxy())
	if err != nil {
		return orderLoad{}, err
	}
	defer conn.Close()
	r, err := pb.NewKVClient(conn).Range(ctx, &pb.RangeRequest{Key: []byte(orderLogKey), Serializable: true})
	if err != nil {
		return orderLoad{}, err
	}
	if len(r.Kvs) != 1 {
		return orderLoad{}, fmt.Errorf("%s: the order etcd has no log", t.name)
	}
	reads, err := series(ctx, t.order.addr, rangesServed)
	return orderLoad{at: time.Now(), entries: float64(r.Kvs[0].Version), read: reads, known: true}, err
}

// since puts what n operations cost the order etcd into a result: what was asked for from
// before until l. The two looks at it are among the reads.
func (l orderLoad) since(before orderLoad, n float64, r result) {
	if !l.known || !before.known || n == 0 {
		return
	}
	r[entries] = 1000 * (l.entries - before.entries) / n
	r[positions] = 1000 * (l.read - before.read) / n
	r[appends] = (l.entries - before.entries) / l.at.Sub(before.at).Seconds()
}
