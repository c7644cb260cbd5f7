package cable_test

import (
	"context"
	"io"
	"net"
	"testing"
	"time"

	"github.com/sourcegraph/conc"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"

	"github.com/sharder/sharder/integration/cable"
	"github.com/sharder/sharder/integration/etcdtest"
	"github.com/sharder/sharder/integration/leaks"
)

func TestMain(m *testing.M) { leaks.Main(m) }

func TestACableCarriesAndCanBeCutAndHeld(t *testing.T) {
	c := cable.New(t, etcdtest.Start(t).Endpoint)
	kv := pb.NewKVClient(etcdtest.Conn(t, c.Addr))
	get := func(d time.Duration) error {
		ctx, cancel := context.WithTimeout(t.Context(), d)
		defer cancel()
		_, err := kv.Range(ctx, &pb.RangeRequest{Key: []byte("a")})
		return err
	}
	answers := func(when string) {
		t.Helper()
		for end := time.Now().Add(30 * time.Second); get(time.Second) != nil; {
			if time.Now().After(end) {
				t.Fatal("no answer " + when)
			}
		}
	}
	answers("at first")
	c.Cut()
	if get(300*time.Millisecond) == nil {
		t.Fatal("an answer through a cable that is cut")
	}
	c.Mend()
	answers("when mended")
	c.Hold()
	if get(300*time.Millisecond) == nil {
		t.Fatal("an answer through a cable that is held")
	}
	c.Release()
	answers("when released")
}

func TestOneOfSeveralCanBeBarred(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	var wg conc.WaitGroup
	wg.Go(func() {
		for {
			conn, err := l.Accept()
			if err != nil {
				return
			}
			wg.Go(func() {
				defer conn.Close()
				_, _ = io.Copy(conn, conn)
			})
		}
	})
	t.Cleanup(func() { l.Close(); wg.Wait() })
	c := cable.New(t, l.Addr().String())
	echoes := func(text string) bool {
		conn, err := net.Dial("tcp", c.Addr)
		if err != nil {
			return false
		}
		defer conn.Close()
		_ = conn.SetDeadline(time.Now().Add(30 * time.Second))
		_, _ = io.WriteString(conn, text)
		b := make([]byte, len(text))
		_, err = io.ReadFull(conn, b)
		return err == nil
	}
	if !echoes("from: a\r\n") || !echoes("from: b\r\n") {
		t.Fatal("the cable carries nothing")
	}
	c.Bar("from: a\r\n")
	if echoes("from: a\r\n") || !echoes("from: b\r\n") {
		t.Fatal("a is barred, and only a")
	}
	c.Mend()
	if !echoes("from: a\r\n") {
		t.Fatal("a is still barred")
	}
}
