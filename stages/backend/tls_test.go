package backend

import (
	"crypto/tls"
	"crypto/x509"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/sharder/sharder/integration/certs"
	"github.com/sharder/sharder/integration/etcdtest"
	"go.etcd.io/etcd/client/pkg/v3/transport"
	"go.etcd.io/etcd/server/v3/embed"
)

// withTLS makes an etcd serve clients over TLS and ask for their certificates.
func withTLS(ca, cert, key string) etcdtest.Option {
	return func(c *embed.Config) {
		any := url.URL{Scheme: "https", Host: "127.0.0.1:0"}
		c.ListenClientUrls, c.AdvertiseClientUrls = []url.URL{any}, []url.URL{any}
		c.ClientTLSInfo = transport.TLSInfo{TrustedCAFile: ca, CertFile: cert, KeyFile: key, ClientCertAuth: ca != ""}
	}
}

// leaf parses the certificate a client configuration presents right now.
func leaf(t *testing.T, conf *tls.Config) *x509.Certificate {
	t.Helper()
	pair, err := conf.GetClientCertificate(nil)
	if err != nil {
		t.Fatal(err)
	}
	cert, err := x509.ParseCertificate(pair.Certificate[0])
	if err != nil {
		t.Fatal(err)
	}
	return cert
}

func TestMutualTLSWorksAndEveryOtherWayIsRefusedWithItsReason(t *testing.T) {
	ca, other := certs.New(t, "ours"), certs.New(t, "other")
	cert, key := ca.Issue("server")
	e := etcdtest.Start(t, withTLS(ca.File, cert, key))
	clientCert, clientKey := ca.Issue("client")

	good, err := TLSConfig(ca.File, clientCert, clientKey, "")
	if err != nil {
		t.Fatal(err)
	}
	for _, endpoint := range []string{e.Endpoint, "https://" + e.Endpoint} {
		c := serving(t, Options{Endpoints: []string{endpoint}, TLS: good})
		if err := put(within(t, 30*time.Second), c, "k", "v"); err != nil {
			t.Fatal(err)
		}
	}

	wrongCA, err := TLSConfig(other.File, clientCert, clientKey, "")
	if err != nil {
		t.Fatal(err)
	}
	wrongName, err := TLSConfig(ca.File, clientCert, clientKey, "etcd.example")
	if err != nil {
		t.Fatal(err)
	}
	noCert, err := TLSConfig(ca.File, "", "", "")
	if err != nil {
		t.Fatal(err)
	}
	for what, o := range map[string]Options{
		"certificate signed by unknown authority": {Endpoints: []string{e.Endpoint}, TLS: wrongCA},
		"match etcd.example":                      {Endpoints: []string{e.Endpoint}, TLS: wrongName},
		"certificate required":                    {Endpoints: []string{e.Endpoint}, TLS: noCert},
		"unknown authority":                       {Endpoints: []string{"https://" + e.Endpoint}}, // the system's roots
	} {
		c := open(t, o)
		// What a member says by way of an alert can be lost to the reset that follows:
		// the next handshake says it again.
		deadline := time.Now().Add(30 * time.Second)
		for {
			_, err := get(within(t, 30*time.Second), c, "k")
			if status.Code(err) != codes.Unavailable || !strings.HasPrefix(status.Convert(err).Message(), "sharder: shard a: no member answers (last error: "+e.Endpoint) {
				t.Fatalf("want %q in: %v", what, err)
			}
			if strings.Contains(err.Error(), what) {
				break
			}
			if time.Now().After(deadline) {
				t.Fatalf("want %q in: %v", what, err)
			}
			time.Sleep(20 * time.Millisecond)
		}
	}
}

func TestAClientCertificateIsReadAgainAtEveryHandshake(t *testing.T) {
	ca := certs.New(t, "ours")
	cert, key := ca.Issue("client")
	conf, err := TLSConfig(ca.File, cert, key, "")
	if err != nil {
		t.Fatal(err)
	}
	first := leaf(t, conf)
	ca.Issue("client")
	second := leaf(t, conf)
	if first.SerialNumber.Cmp(second.SerialNumber) == 0 {
		t.Error("the old certificate is still presented")
	}
	// Halfway through a rotation the two files don't fit: the last pair stays.
	if err := os.WriteFile(key, []byte("half"), 0o600); err != nil {
		t.Fatal(err)
	}
	if got := leaf(t, conf); got.SerialNumber.Cmp(second.SerialNumber) != 0 {
		t.Error("a broken pair replaced the good one")
	}
}

func TestTLSFilesThatDontWorkAreNamed(t *testing.T) {
	ca := certs.New(t, "ours")
	cert, key := ca.Issue("client")
	_, foreign := ca.Issue("other")
	absent, garbage := filepath.Join(t.TempDir(), "absent.pem"), filepath.Join(t.TempDir(), "garbage.pem")
	if err := os.WriteFile(garbage, []byte("no PEM"), 0o600); err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct{ ca, cert, key, want string }{
		{absent, "", "", absent},
		{garbage, "", "", garbage},
		{ca.File, absent, key, absent},
		{ca.File, cert, absent, absent},
		{ca.File, garbage, key, garbage},
		{ca.File, cert, foreign, foreign},
		{ca.File, cert, "", "only one of the two"},
		{"", "", key, "only one of the two"},
	} {
		_, err := TLSConfig(c.ca, c.cert, c.key, "")
		if err == nil || !strings.HasPrefix(err.Error(), "sharder: TLS") || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%+v: %v", c, err)
		}
	}
}
