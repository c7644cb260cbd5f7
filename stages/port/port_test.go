package port

import (
	"bufio"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"testing"
	"time"

	"github.com/sourcegraph/conc"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/health"
	healthpb "google.golang.org/grpc/health/grpc_health_v1"
	"google.golang.org/grpc/peer"
)

// serving is a port with a real server of each kind behind it: gRPC's health service, which
// tells where its clients come from, and HTTP.
type serving struct {
	*Port
	addr  string
	peers chan string
	end   func() error
}

// certificate is one that clients can check.
func certificate(t testing.TB) (server, client *tls.Config) {
	t.Helper()
	s := httptest.NewTLSServer(nil)
	defer s.Close()
	return &tls.Config{Certificates: s.TLS.Certificates, NextProtos: []string{"h2", "http/1.1"}},
		s.Client().Transport.(*http.Transport).TLSClientConfig.Clone()
}

// grpcServer is the server of gRPC.
func grpcServer(peers chan<- string) *grpc.Server {
	g := grpc.NewServer(grpc.UnaryInterceptor(func(ctx context.Context, req any, _ *grpc.UnaryServerInfo, h grpc.UnaryHandler) (any, error) {
		if p, ok := peer.FromContext(ctx); ok {
			select {
			case peers <- p.Addr.String():
			default: // nobody looks
			}
		}
		return h(ctx, req)
	}))
	healthpb.RegisterHealthServer(g, health.NewServer())
	return g
}

func serve(t testing.TB, o Options, network, address string, secure *tls.Config) *serving {
	t.Helper()
	if o.Logger == nil {
		o.Logger = slog.New(slog.DiscardHandler)
	}
	l, err := Listen(network, address)
	if err != nil {
		t.Fatal(err)
	}
	s := &serving{Port: New(o, Listener{l, secure}), addr: l.Addr().String(), peers: make(chan string, 100)}
	g := grpcServer(s.peers)
	h := &http.Server{Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if strings.HasPrefix(r.Header.Get("Content-Type"), "application/grpc") {
			g.ServeHTTP(w, r)
			return
		}
		fmt.Fprintf(w, "%s %s %t", r.Proto, r.RemoteAddr, r.TLS != nil)
	})}
	ctx, stop := context.WithCancel(context.Background())
	var wg conc.WaitGroup
	ended := make(chan error, 1)
	wg.Go(func() { ended <- s.Run(ctx) })
	wg.Go(func() { _ = g.Serve(s.GRPC()) })
	wg.Go(func() { _ = h.Serve(s.HTTP()) })
	s.end = func() error {
		stop()
		err := <-ended
		g.Stop()
		_ = h.Close()
		s.CloseAll()
		wg.Wait()
		ended <- err
		return err
	}
	t.Cleanup(func() { _ = s.end() })
	return s
}

// check asks by gRPC.
func (s *serving) check(t testing.TB, network string, creds credentials.TransportCredentials) error {
	t.Helper()
	target := "passthrough:///" + s.addr
	if network == "unix" {
		target = "unix:" + s.addr
	}
	conn, err := grpc.NewClient(target, grpc.WithTransportCredentials(creds))
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
	defer cancel()
	_, err = healthpb.NewHealthClient(conn).Check(ctx, &healthpb.HealthCheckRequest{})
	return err
}

// get asks by HTTP with what the client offers.
func (s *serving) get(t testing.TB, network string, client *tls.Config, version2 bool) (string, error) {
	t.Helper()
	if client = client.Clone(); client != nil && !version2 {
		client.NextProtos = []string{"http/1.1"}
	}
	tr := &http.Transport{
		TLSClientConfig: client, ForceAttemptHTTP2: version2,
		DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
			var d net.Dialer
			return d.DialContext(ctx, network, s.addr)
		},
	}
	defer tr.CloseIdleConnections()
	scheme := "http"
	if client != nil {
		scheme = "https"
	}
	resp, err := (&http.Client{Transport: tr, Timeout: 30 * time.Second}).Get(scheme + "://example.com/")
	if err != nil {
		return "", err
	}
	defer resp.Body.Close()
	text, err := io.ReadAll(resp.Body)
	return string(text), err
}

func TestBothCanBeAskedOnOnePort(t *testing.T) {
	for _, network := range []string{"tcp", "unix"} {
		for _, secure := range []bool{false, true} {
			t.Run(fmt.Sprint(network, " over TLS: ", secure), func(t *testing.T) {
				address := "127.0.0.1:0"
				if network == "unix" {
					address = filepath.Join(t.TempDir(), "s")
				}
				var server, client *tls.Config
				creds := insecure.NewCredentials()
				if secure {
					server, client = certificate(t)
					creds = credentials.NewTLS(&tls.Config{RootCAs: client.RootCAs, ServerName: "example.com"})
				}
				s := serve(t, Options{}, network, address, server)
				if err := s.check(t, network, creds); err != nil {
					t.Error(err)
				}
				if from := <-s.peers; network == "tcp" && !strings.HasPrefix(from, "127.0.0.1:") {
					t.Errorf("the client of gRPC comes from %q", from)
				}
				text, err := s.get(t, network, client, false)
				if err != nil || !strings.HasPrefix(text, "HTTP/1.1 ") || !strings.HasSuffix(text, fmt.Sprint(" ", secure)) {
					t.Errorf("%q %v", text, err)
				}
				if network == "tcp" && !strings.Contains(text, " 127.0.0.1:") {
					t.Errorf("the client of HTTP comes from %q", text)
				}
			})
		}
	}
}

// A client of TLS that speaks both is served by HTTP's server, whichever it means to speak.
func TestAClientThatOffersBothMaySpeakEither(t *testing.T) {
	server, client := certificate(t)
	s := serve(t, Options{}, "tcp", "127.0.0.1:0", server)
	text, err := s.get(t, "tcp", client, true)
	if err != nil || !strings.HasPrefix(text, "HTTP/2.0 ") {
		t.Errorf("%q %v", text, err)
	}
	both := credentials.NewTLS(&tls.Config{RootCAs: client.RootCAs, ServerName: "example.com", NextProtos: []string{"h2", "http/1.1"}})
	if err := s.check(t, "tcp", both); err != nil {
		t.Error(err)
	}
}

// A client of TLS that offers nothing is known by its first bytes.
func TestAClientThatOffersNothingIsKnownByItsFirstBytes(t *testing.T) {
	server, client := certificate(t)
	s := serve(t, Options{}, "tcp", "127.0.0.1:0", server)
	for request, want := range map[string]string{
		"GET / HTTP/1.1\r\nHost: h\r\n\r\n":              "HTTP/1.1 200 OK",
		"POST / HTTP/1.1\r\nHost: h\r\n\r\n":             "HTTP/1.1 200 OK", // begins as the preface does
		"PRI * HTTP/2.0\r\n\r\nXX":                       "HTTP/1.1 ",
		preface + "\x00\x00\x00\x04\x00\x00\x00\x00\x00": "\x00\x00", // gRPC's settings
	} {
		c, err := tls.Dial("tcp", s.addr, &tls.Config{RootCAs: client.RootCAs, ServerName: "example.com"})
		if err != nil {
			t.Fatal(err)
		}
		for i := range request { // byte by byte, as a slow network would
			if _, err := io.WriteString(c, request[i:i+1]); err != nil {
				break // it has heard enough
			}
		}
		_ = c.SetReadDeadline(time.Now().Add(30 * time.Second))
		have := make([]byte, len(want))
		if _, err := io.ReadFull(c, have); err != nil || string(have) != want {
			t.Errorf("%q: %q %v", request, have, err)
		}
		_ = c.Close()
	}
}

func TestASilentConnectionHoldsNobodyUpAndIsClosed(t *testing.T) {
	server, client := certificate(t)
	for _, secure := range []*tls.Config{nil, server} {
		s := serve(t, Options{Begin: time.Hour}, "tcp", "127.0.0.1:0", secure)
		silence(t, s)
		creds, ask := insecure.NewCredentials(), (*tls.Config)(nil)
		if secure != nil {
			creds, ask = credentials.NewTLS(&tls.Config{RootCAs: client.RootCAs, ServerName: "example.com"}), client
		}
		if err := s.check(t, "tcp", creds); err != nil {
			t.Error(err)
		}
		if text, err := s.get(t, "tcp", ask, false); err != nil {
			t.Errorf("%q %v", text, err)
		}
		s = serve(t, Options{Begin: 100 * time.Millisecond}, "tcp", "127.0.0.1:0", secure)
		for _, c := range silence(t, s) {
			_ = c.SetReadDeadline(time.Now().Add(30 * time.Second))
			if _, err := c.Read(make([]byte, 1)); err == nil || errors.Is(err, os.ErrDeadlineExceeded) {
				t.Fatalf("it is still open: %v", err)
			}
		}
		if n := s.count(); n != 0 {
			t.Errorf("%d connections are open", n)
		}
	}
}

// silence opens connections that say nothing.
func silence(t *testing.T, s *serving) (all []net.Conn) {
	t.Helper()
	for range 50 {
		c, err := net.Dial("tcp", s.addr)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = c.Close() })
		all = append(all, c)
	}
	return all
}

// count waits until connections are gone, and gives how many stay.
func (s *serving) count() (n int) {
	for end := time.Now().Add(30 * time.Second); time.Now().Before(end); {
		s.mu.Lock()
		n = len(s.open)
		s.mu.Unlock()
		if n == 0 {
			break
		}
		time.Sleep(10 * time.Millisecond)
	}
	return n
}

// What begins when it is over is closed, and nothing waits for it.
func TestTheEndDoesNotWaitForWhoSaysNothing(t *testing.T) {
	server, _ := certificate(t)
	for _, secure := range []*tls.Config{nil, server} {
		s := serve(t, Options{Begin: time.Hour}, "tcp", "127.0.0.1:0", secure)
		c, err := net.Dial("tcp", s.addr)
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
		time.Sleep(20 * time.Millisecond) // it is taken, most likely; if not, the test shows less
		began := time.Now()
		if err := s.end(); err != nil {
			t.Error(err)
		}
		if d := time.Since(began); d > 30*time.Second {
			t.Errorf("it took %v", d)
		}
		if c, err := net.Dial("tcp", s.addr); err == nil {
			_ = c.Close()
			t.Error("it still listens")
		}
	}
}

func TestAListenerThatFailsEndsThePort(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	p := New(Options{Logger: slog.New(slog.DiscardHandler)}, Listener{Listener: l})
	_ = l.Close()
	if err := p.Run(t.Context()); !errors.Is(err, net.ErrClosed) {
		t.Errorf("%v", err)
	}
}

func TestHTTPInTheClearIsToldOfTLS(t *testing.T) {
	server, _ := certificate(t)
	s := serve(t, Options{}, "tcp", "127.0.0.1:0", server)
	c, err := net.Dial("tcp", s.addr)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	_, _ = io.WriteString(c, "GET / HTTP/1.1\r\nHost: h\r\n\r\n")
	resp, err := http.ReadResponse(bufio.NewReader(c), nil)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	if text, _ := io.ReadAll(resp.Body); resp.StatusCode != 400 || !strings.Contains(string(text), "HTTPS") {
		t.Errorf("%d %q", resp.StatusCode, text)
	}
}

// A client that comes again resumes its session: the certificate is not shown twice.
func TestSessionsAreResumed(t *testing.T) {
	server, client := certificate(t)
	s := serve(t, Options{}, "tcp", "127.0.0.1:0", server)
	conf := &tls.Config{RootCAs: client.RootCAs, ServerName: "example.com", NextProtos: []string{"http/1.1"}, ClientSessionCache: tls.NewLRUClientSessionCache(1)}
	resumed := false
	for range 2 {
		c, err := tls.Dial("tcp", s.addr, conf)
		if err != nil {
			t.Fatal(err)
		}
		_, _ = io.WriteString(c, "GET / HTTP/1.0\r\n\r\n")
		if _, err := io.ReadAll(c); err != nil {
			t.Error(err)
		}
		resumed = c.ConnectionState().DidResume
		_ = c.Close()
	}
	if !resumed {
		t.Error("the second handshake was a whole one")
	}
}

// gRPC would hold 32 KiB for each connection to read into.
func TestAConnectionThatIsSilentHoldsNoBuffer(t *testing.T) {
	s := serve(t, Options{}, "tcp", "127.0.0.1:0", nil)
	heap := func() int64 {
		runtime.GC()
		runtime.GC() // what pools held goes with the second
		var m runtime.MemStats
		runtime.ReadMemStats(&m)
		return int64(m.HeapAlloc)
	}
	const n = 200
	before := heap()
	for range n {
		// The client of this test has no buffers either.
		conn, err := grpc.NewClient("passthrough:///"+s.addr, grpc.WithTransportCredentials(insecure.NewCredentials()),
			grpc.WithReadBufferSize(0), grpc.WithWriteBufferSize(0))
		if err != nil {
			t.Fatal(err)
		}
		defer conn.Close()
		if _, err := healthpb.NewHealthClient(conn).Check(t.Context(), &healthpb.HealthCheckRequest{}); err != nil {
			t.Fatal(err)
		}
		<-s.peers
	}
	each := (heap() - before) / n
	t.Logf("%d bytes for each connection, its client's included", each)
	if runtime.GOOS == "linux" && each > 48<<10 {
		t.Errorf("%d bytes for each connection", each)
	}
}
