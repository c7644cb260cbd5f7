package backend

import (
	"context"
	"net/url"
	"strings"
	"testing"
	"time"

	"github.com/sharder/sharder/integration/certs"
	"github.com/sharder/sharder/integration/etcdproc"
	"github.com/sharder/sharder/integration/etcdtest"
	"github.com/sharder/sharder/integration/ports"
	"go.etcd.io/etcd/api/v3/version"
	clientv3 "go.etcd.io/etcd/client/v3"
	"go.etcd.io/etcd/server/v3/embed"
)

// versionsOf asks until there is an answer that is as it should be.
func versionsOf(t *testing.T, c *Cluster, ok func(version.Versions, error) bool) {
	t.Helper()
	var v version.Versions
	var err error
	for deadline := time.Now().Add(30 * time.Second); time.Now().Before(deadline); time.Sleep(50 * time.Millisecond) {
		if v, err = c.Versions(t.Context()); ok(v, err) {
			return
		}
	}
	t.Errorf("%+v %v", v, err)
}

func whole(v version.Versions, err error) bool {
	return err == nil && v == version.Versions{Server: version.Version, Cluster: "3.7.0", Storage: "3.7.0"}
}

func TestVersionsAreThoseThatEtcdTellsEverybody(t *testing.T) {
	ca := certs.New(t, "ours")
	cert, key := ca.Issue("server")
	conf, err := TLSConfig(ca.File, cert, key, "")
	if err != nil {
		t.Fatal(err)
	}
	over := etcdproc.Start(t, 1, etcdproc.WithTLS(ca.File, cert, key, clientv3.Config{TLS: conf}))
	c := open(t, Options{Endpoints: over.Endpoints(), TLS: conf})
	versionsOf(t, c, whole)
	a, b := etcdtest.Start(t), etcdtest.Start(t) // the first that answers
	c = open(t, Options{Endpoints: []string{a.Endpoint, b.Endpoint}})
	versionsOf(t, c, func(v version.Versions, err error) bool {
		return whole(v, err) && c.Members()[1].Version != "" // a probe has found it out, too
	})
	a.Stop()
	versionsOf(t, c, whole)
	b.Stop()
	versionsOf(t, c, func(v version.Versions, err error) bool { // from before
		return err == nil && v.Server == version.Version && v.Cluster == "3.7.0"
	})
}

func TestVersionsWithoutHTTPAreThoseOfTheProbes(t *testing.T) {
	e := etcdtest.Start(t, func(c *embed.Config) {
		c.ListenClientHttpUrls = []url.URL{{Scheme: "http", Host: ports.Of(t)}}
	})
	c := open(t, Options{Endpoints: []string{e.Endpoint}})
	versionsOf(t, c, func(v version.Versions, err error) bool {
		return err == nil && v == version.Versions{Server: version.Version, Cluster: "3.7.0"}
	})
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	c = open(t, Options{Endpoints: []string{"127.0.0.1:1"}})
	if v, err := c.Versions(ctx); err == nil || !strings.Contains(err.Error(), "no member tells its version") {
		t.Errorf("%+v %v", v, err)
	}
}
