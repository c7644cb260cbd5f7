package grpcproxy_test

import (
	"fmt"
	"strings"
	"testing"

	"github.com/sourcegraph/conc/pool"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
)

// R16: lists that are read leave nothing behind. grpc-proxy grows from 26 to 943 MiB with a
// hundred lists of 4.5 MB, since it keeps every answer, of linearizable reads too.
func TestListsThatAreReadStayNowhere(t *testing.T) {
	t.Parallel()
	const lists, keys, size = 60, 40, 64 << 10 // 60 different lists, the smallest of 2.5 MiB
	d := open(t, sharder, &probe{})
	c := d.behind()
	value := strings.Repeat("v", size)
	for i := range keys + lists {
		if _, err := c.Put(t.Context(), fmt.Sprintf("k%03d", i), value); err != nil {
			t.Fatal(err)
		}
	}
	read := func(i int, serializable bool) {
		r, err := d.kv().Range(t.Context(), &pb.RangeRequest{Key: fmt.Appendf(nil, "k%03d", i), RangeEnd: []byte("l"), Limit: keys, Serializable: serializable})
		if err != nil || len(r.Kvs) != keys {
			t.Fatalf("%d keys, %v", len(r.GetKvs()), err)
		}
	}
	for i := range 40 { // of a few, so that the runtime has in hand what it ever needs for one
		read(i%10, i%2 == 0)
	}
	before := resident(t, d.proxy.Pid())
	for i := range lists {
		read(i, false)
		read(i, true)
	}
	after := resident(t, d.proxy.Pid())
	t.Logf("%d MiB, then %d MiB", before, after)
	// What the runtime keeps in hand for messages of this size, and the whole of the cache.
	if after-before > 150 {
		t.Errorf("the process grew from %d to %d MiB", before, after)
	}
}

// Q01: neither do keys that are read. grpc-proxy holds 2048 answers and, for a million keys read,
// 474 MiB of what they were.
func TestKeysThatAreReadStayNowhere(t *testing.T) {
	t.Parallel()
	const readers, each = 8, 2500
	d := open(t, sharder, &probe{})
	name := strings.Repeat("n", 2048)
	read := func(each int) {
		p := pool.New().WithErrors()
		for i := range readers {
			kv := d.kv()
			p.Go(func() error {
				for j := range each {
					r := &pb.RangeRequest{Key: fmt.Appendf(nil, "%s%d-%d", name, i, j), Serializable: true}
					if _, err := kv.Range(t.Context(), r); err != nil {
						return err
					}
				}
				return nil
			})
		}
		if err := p.Wait(); err != nil {
			t.Fatal(err)
		}
	}
	read(200)
	before := resident(t, d.proxy.Pid())
	read(each) // 40 MiB of names
	after := resident(t, d.proxy.Pid())
	t.Logf("%d MiB, then %d MiB", before, after)
	if after-before > 100 {
		t.Errorf("the process grew from %d to %d MiB", before, after)
	}
}
