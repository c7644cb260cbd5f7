package members

import (
	"context"
	"slices"
	"testing"
	"time"

	"go.uber.org/zap"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"

	"github.com/sharder/sharder/integration/etcdtest"
	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	clientv3 "go.etcd.io/etcd/client/v3"
	"go.etcd.io/etcd/client/v3/naming/endpoints"
	"go.etcd.io/etcd/client/v3/naming/resolver"
	"go.etcd.io/etcd/server/v3/proxy/grpcproxy"
)

// counting looks at reads before they are made.
type counting struct {
	pb.KVClient
	look func(*pb.RangeRequest)
}

func (c counting) Range(ctx context.Context, r *pb.RangeRequest, opts ...grpc.CallOption) (*pb.RangeResponse, error) {
	c.look(r)
	return c.KVClient.Range(ctx, r, opts...)
}

func TestResolversOfEtcdsNamingFindSharders(t *testing.T) {
	e := etcdtest.Start(t)
	run(t, registry(e, "a", e.Endpoint)) // an address that answers
	registered(t, registry(e, "b"), "http://"+e.Endpoint)
	c := e.Client()
	m, err := endpoints.NewManager(c, place)
	if err != nil {
		t.Fatal(err)
	}
	all, err := m.List(t.Context())
	if err != nil || len(all) != 1 || all[place+"/"+e.Endpoint].Addr != e.Endpoint {
		t.Fatalf("%v, %v", all, err)
	}
	b, err := resolver.NewBuilder(c)
	if err != nil {
		t.Fatal(err)
	}
	conn, err := grpc.NewClient("etcd:///"+place, grpc.WithResolvers(b), grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
	defer cancel()
	if _, err := pb.NewKVClient(conn).Range(ctx, &pb.RangeRequest{Key: []byte("k")}, grpc.WaitForReady(true)); err != nil {
		t.Fatal(err)
	}
}

func TestGRPCProxiesAndShardersSeeEachOther(t *testing.T) {
	e := etcdtest.Start(t)
	c, err := clientv3.New(clientv3.Config{Endpoints: []string{e.Endpoint}, Logger: zap.NewNop()})
	if err != nil {
		t.Fatal(err)
	}
	done := grpcproxy.Register(zap.NewNop(), c, place, "127.0.0.1:23790", 60)
	proxy, watched := grpcproxy.NewClusterProxy(zap.NewNop(), c, "127.0.0.1:23790", place)
	defer func() {
		c.Close() // ends both
		<-done
		<-watched
	}()
	a := registry(e, "a", "10.0.0.1:2379")
	run(t, a)
	registered(t, a, "http://10.0.0.1:2379", "127.0.0.1:23790")
	if _, urls := answer(t, a); !slices.Equal(urls, []string{"127.0.0.1:23790", "http://10.0.0.1:2379"}) {
		t.Errorf("%q", urls)
	}
	eventually(t, "the grpc-proxy tells of the sharder", func() bool {
		l, err := proxy.MemberList(t.Context(), &pb.MemberListRequest{})
		if err != nil {
			t.Fatal(err)
		}
		return len(l.Members) == 2 && slices.ContainsFunc(l.Members, func(m *pb.Member) bool {
			return m.Name == "a" && slices.Equal(m.ClientURLs, []string{"10.0.0.1:2379"})
		})
	})
}
