package port

import (
	"context"
	"crypto/tls"
	"net"
	"testing"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/credentials/insecure"
	healthpb "google.golang.org/grpc/health/grpc_health_v1"
)

// BenchmarkAUnaryCall is what a call of gRPC costs on a bare listener, on a port in the clear and
// over TLS, and on a port over TLS when the client offers http/1.1, too. What the port adds to
// a call is the difference of the first two.
func BenchmarkAUnaryCall(b *testing.B) {
	server, client := certificate(b)
	with := func(protos ...string) credentials.TransportCredentials {
		return credentials.NewTLS(&tls.Config{RootCAs: client.RootCAs, ServerName: "example.com", NextProtos: protos})
	}
	bare := func(b *testing.B) string {
		l, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			b.Fatal(err)
		}
		g := grpcServer(nil)
		ended := make(chan struct{})
		go func() { defer close(ended); _ = g.Serve(l) }()
		b.Cleanup(func() { g.Stop(); <-ended })
		return l.Addr().String()
	}
	ported := func(secure *tls.Config) func(b *testing.B) string {
		return func(b *testing.B) string { return serve(b, Options{}, "tcp", "127.0.0.1:0", secure).addr }
	}
	for _, c := range []struct {
		name  string
		at    func(b *testing.B) string
		creds credentials.TransportCredentials
	}{
		{"bare", bare, insecure.NewCredentials()},
		{"port", ported(nil), insecure.NewCredentials()},
		{"port-tls", ported(server), with("h2")},
		{"port-tls-by-http", ported(server), with("h2", "http/1.1")},
	} {
		b.Run(c.name, func(b *testing.B) { calls(b, c.at(b), c.creds) })
	}
}

func calls(b *testing.B, addr string, creds credentials.TransportCredentials) {
	conn, err := grpc.NewClient("passthrough:///"+addr, grpc.WithTransportCredentials(creds))
	if err != nil {
		b.Fatal(err)
	}
	defer conn.Close()
	h := healthpb.NewHealthClient(conn)
	if _, err := h.Check(b.Context(), &healthpb.HealthCheckRequest{}); err != nil {
		b.Fatal(err)
	}
	b.ReportAllocs()
	b.RunParallel(func(p *testing.PB) {
		for p.Next() {
			if _, err := h.Check(context.Background(), &healthpb.HealthCheckRequest{}); err != nil {
				b.Error(err)
				return
			}
		}
	})
}
