package discovery

import (
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"log/slog"
	"net"
	"net/http/httptest"
	"testing"

	"github.com/sharder/sharder/integration/dnstest"
)

func TestEndpointsAreFoundByBothNames(t *testing.T) {
	dns := dnstest.New(t)
	d := Lookup{Domain: "example.com", Resolver: dns.Resolver(), Logger: slog.New(slog.DiscardHandler)}
	if _, err := d.Endpoints(t.Context()); err == nil {
		t.Fatal("nothing is something?")
	}
	dns.Set("etcd-client", net.SRV{Target: "b.example.com.", Port: 2379, Priority: 10, Weight: 5}, net.SRV{Target: "a.example.com.", Port: 2380})
	dns.Set("etcd-client-ssl", net.SRV{Target: "c.example.com.", Port: 1, Priority: 3})
	got, err := d.Endpoints(t.Context())
	if want := "[{a.example.com:2380 false 0 0} {c.example.com:1 true 3 0} {b.example.com:2379 false 10 5}]"; err != nil || fmt.Sprint(got) != want {
		t.Fatalf("%v, %v; want %s", got, err, want)
	}
	dns.Set("etcd-client-blue", net.SRV{Target: "d.example.com.", Port: 7})
	d.Name = "blue"
	if got, err := d.Endpoints(t.Context()); err != nil || fmt.Sprint(got) != "[{d.example.com:7 false 0 0}]" {
		t.Fatal(got, err)
	}
}

// Without insecure discovery whoever can write a record could lead clients anywhere.
func TestOnlyEndpointsWithACertificateForTheDomainCount(t *testing.T) {
	secure := httptest.NewTLSServer(nil) // its certificate is for example.com
	defer secure.Close()
	plain := httptest.NewServer(nil)
	defer plain.Close()
	roots := x509.NewCertPool()
	roots.AddCert(secure.Certificate())
	dns := dnstest.New(t)
	record := dnstest.Record(t, secure.Listener.Addr().String())
	other := dnstest.Record(t, plain.Listener.Addr().String())
	dns.Set("etcd-client", other)
	other.Priority = 1
	dns.Set("etcd-client-ssl", record, other)
	d := Lookup{
		Domain: "example.com", Resolver: dns.Resolver(),
		TLS: &tls.Config{RootCAs: roots}, Logger: slog.New(slog.DiscardHandler),
	}
	got, err := d.Endpoints(t.Context())
	if err != nil || len(got) != 1 || got[0].Addr != fmt.Sprintf("localhost:%d", record.Port) || !got[0].Secure {
		t.Fatal(got, err)
	}
	d.TLS = &tls.Config{RootCAs: x509.NewCertPool()}
	if got, err := d.Endpoints(t.Context()); err == nil {
		t.Fatal("not trusted, and found:", got)
	}
	d.TLS, d.SecureOnly = nil, true
	if got, err := d.Endpoints(t.Context()); err != nil || len(got) != 2 || !got[0].Secure || !got[1].Secure {
		t.Fatal("without a look at certificates:", got, err)
	}
	d.SecureOnly = false
	if got, err := d.Endpoints(t.Context()); err != nil || len(got) != 2 || !got[1].Secure {
		t.Fatal("what is found as secure and as not is secure:", got, err)
	}
}

// A name server that fails for one of the two names says nothing about its endpoints.
func TestWhatCouldNotBeLookedUpIsTold(t *testing.T) {
	dns := dnstest.New(t)
	d := Lookup{Domain: "example.com", Resolver: dns.Resolver(), Logger: slog.New(slog.DiscardHandler)}
	dns.Set("etcd-client", net.SRV{Target: "a.example.com.", Port: 2380})
	if got, err := d.Endpoints(t.Context()); err != nil || len(got) != 1 {
		t.Fatal("there is no other name:", got, err)
	}
	dns.Break("etcd-client-ssl")
	if got, err := d.Endpoints(t.Context()); err == nil || len(got) != 1 {
		t.Fatal("the other name could not be asked for:", got, err)
	}
	dns.Break("etcd-client")
	if got, err := d.Endpoints(t.Context()); err == nil || len(got) != 0 {
		t.Fatal("no name could be asked for:", got, err)
	}
}
