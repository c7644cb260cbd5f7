package gateway

import (
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"log/slog"
	"net"
	"net/http/httptest"
	"strconv"
	"testing"
	"time"
)

func portOf(t *testing.T, addr string) uint16 {
	t.Helper()
	_, port, err := net.SplitHostPort(addr)
	if err != nil {
		t.Fatal(err)
	}
	n, err := strconv.ParseUint(port, 10, 16)
	if err != nil {
		t.Fatal(err)
	}
	return uint16(n)
}

func TestEndpointsAreFoundByBothNames(t *testing.T) {
	dns := newNames(t)
	d := Discovery{Domain: "example.com", Resolver: dns.resolver(), Logger: slog.New(slog.DiscardHandler)}
	if _, err := d.Endpoints(t.Context()); err == nil {
		t.Fatal("nothing is something?")
	}
	dns.set("etcd-client", net.SRV{Target: "b.example.com.", Port: 2379, Priority: 10, Weight: 5}, net.SRV{Target: "a.example.com.", Port: 2380})
	dns.set("etcd-client-ssl", net.SRV{Target: "c.example.com.", Port: 1, Priority: 3})
	got, err := d.Endpoints(t.Context())
	if want := "[{a.example.com:2380 0 0} {c.example.com:1 3 0} {b.example.com:2379 10 5}]"; err != nil || fmt.Sprint(got) != want {
		t.Fatalf("%v, %v; want %s", got, err, want)
	}
	dns.set("etcd-client-blue", net.SRV{Target: "d.example.com.", Port: 7})
	d.Name = "blue"
	if got, err := d.Endpoints(t.Context()); err != nil || fmt.Sprint(got) != "[{d.example.com:7 0 0}]" {
		t.Fatal(got, err)
	}
}

// etcd gateway looks the records up once.
func TestEndpointsAreLookedUpAgain(t *testing.T) {
	a, b := serveOn(t, "127.0.0.1:0", name("a")), serveOn(t, "127.0.0.1:0", name("b"))
	dns := newNames(t)
	record := func(s *server) net.SRV { return net.SRV{Target: "localhost.", Port: portOf(t, s.addr())} }
	dns.set("etcd-client", record(a))
	d := Discovery{Domain: "example.com", Resolver: dns.resolver(), Logger: slog.New(slog.DiscardHandler)}
	_, addr, _ := start(t, Options{Endpoints: d.Endpoints, Refresh: 20 * time.Millisecond})
	if got := who(t, addr); got != "a" {
		t.Fatal(got)
	}
	dns.set("etcd-client", record(b))
	eventually(t, "the new endpoint is used", func() bool { return who(t, addr) == "b" })
	dns.set("etcd-client")
	time.Sleep(100 * time.Millisecond)
	if got := who(t, addr); got != "b" {
		t.Fatalf("a lookup that finds nothing takes the endpoints away: %q", got)
	}
}

// Without insecure discovery whoever can write a record could lead clients anywhere.
func TestOnlyEndpointsWithACertificateForTheDomainCount(t *testing.T) {
	secure := httptest.NewTLSServer(nil) // its certificate is for example.com
	defer secure.Close()
	plain := serveOn(t, "127.0.0.1:0", name("plain"))
	roots := x509.NewCertPool()
	roots.AddCert(secure.Certificate())
	dns := newNames(t)
	port := portOf(t, secure.Listener.Addr().String())
	dns.set("etcd-client-ssl", net.SRV{Target: "localhost.", Port: port}, net.SRV{Target: "127.0.0.1.", Port: portOf(t, plain.addr()), Priority: 1})
	dns.set("etcd-client", net.SRV{Target: "localhost.", Port: portOf(t, plain.addr())})
	d := Discovery{
		Domain: "example.com", Resolver: dns.resolver(), Timeout: time.Second,
		TLS: &tls.Config{RootCAs: roots}, Logger: slog.New(slog.DiscardHandler),
	}
	got, err := d.Endpoints(t.Context())
	if err != nil || len(got) != 1 || portOf(t, got[0].Addr) != port {
		t.Fatal(got, err)
	}
	d.TLS = &tls.Config{RootCAs: x509.NewCertPool()}
	if got, err := d.Endpoints(t.Context()); err == nil {
		t.Fatal("not trusted, and found:", got)
	}
}
