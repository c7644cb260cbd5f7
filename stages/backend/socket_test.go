package backend

import (
	"context"
	"net/url"
	"os"
	"path/filepath"
	"testing"
	"time"

	"go.etcd.io/etcd/client/pkg/v3/transport"
	"go.etcd.io/etcd/server/v3/embed"

	"github.com/sharder/sharder/integration/certs"
	"github.com/sharder/sharder/integration/etcdtest"
	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
)

// An etcd of this machine may listen on a socket, with TLS or without, as clients of etcd and
// grpc-proxy reach it.
func TestAnEtcdOnASocketIsAMember(t *testing.T) {
	dir, err := os.MkdirTemp("", "s") // shorter than the test's own: a socket's path has a bound
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	// etcd takes the host for a name in the certificate, which is for 127.0.0.1.
	socket := filepath.Join(dir, "127.0.0.1")
	ca := certs.New(t, "socket")
	cert, key := ca.Issue("member")
	for _, scheme := range []string{"unix", "unixs"} {
		t.Run(scheme, func(t *testing.T) {
			etcdtest.Start(t, func(c *embed.Config) {
				c.ListenClientUrls = append(c.ListenClientUrls, url.URL{Scheme: scheme, Host: socket})
				if scheme == "unixs" {
					c.ClientTLSInfo = transport.TLSInfo{CertFile: cert, KeyFile: key}
				}
			})
			o := Options{Endpoints: []string{scheme + "://" + socket}}
			if scheme == "unixs" {
				var err error
				if o.TLS, err = TLSConfig(ca.File, "", "", ""); err != nil {
					t.Fatal(err)
				}
			}
			c := serving(t, o)
			kv := pb.NewKVClient(c)
			if _, err := kv.Put(within(t, 30*time.Second), &pb.PutRequest{Key: []byte("k"), Value: []byte("v")}); err != nil {
				t.Fatal(err)
			}
			if v, err := c.Versions(context.Background()); err != nil || v.Server == "" {
				t.Errorf("%v, %v", v, err)
			}
			if m := c.Members()[0]; m.Endpoint != "unix://"+socket || !m.Healthy {
				t.Errorf("%+v", m)
			}
		})
	}
}
