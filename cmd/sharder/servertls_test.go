package main

import (
	"context"
	"crypto/tls"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/status"

	"github.com/sharder/sharder/integration/certs"
	"github.com/sharder/sharder/integration/etcdtest"
	"github.com/sharder/sharder/stages/backend"
	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"
)

// secured starts a sharder that serves TLS, with more lines in its table, and for operators, too,
// if metrics has an address.
func secured(t *testing.T, cert, key, more string, metrics ...string) *sharderRun {
	t.Helper()
	e := etcdtest.Start(t)
	top := ""
	for _, address := range metrics {
		top = fmt.Sprintf("metrics = %q\n", address)
	}
	return start(t, top+fmt.Sprintf("drain_timeout = \"1s\"\n[tls]\ncert = %q\nkey = %q\n%s\n[shards.a]\nendpoints = [%q]\n[routes]\n\"\" = \"a\"\n", cert, key, more, e.Endpoint))
}

// asks makes one request over TLS. Who is turned away is told at once; etcd's client would try again.
func asks(t *testing.T, endpoint string, conf *tls.Config) error {
	t.Helper()
	return asksBy(t, endpoint, credentials.NewTLS(conf))
}

func asksBy(t *testing.T, endpoint string, creds credentials.TransportCredentials) error {
	t.Helper()
	c, err := grpc.NewClient("passthrough:///"+endpoint, grpc.WithTransportCredentials(creds))
	if err != nil {
		return err
	}
	defer c.Close()
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
	defer cancel()
	_, err = pb.NewKVClient(c).Range(ctx, &pb.RangeRequest{Key: []byte("k")})
	return err
}

func mustTLS(t *testing.T, ca, cert, key string) *tls.Config {
	t.Helper()
	c, err := backend.TLSConfig(ca, cert, key, "")
	if err != nil {
		t.Fatal(err)
	}
	return c
}

func TestClientsComeOverTLS(t *testing.T) {
	t.Parallel()
	ours, other := certs.New(t, "ours"), certs.New(t, "other")
	cert, key := ours.Issue("server")
	clientCert, clientKey := ours.Issue("client")
	foreignCert, foreignKey := other.Issue("client")
	r := secured(t, cert, key, fmt.Sprintf("client_ca = %q\nmin_version = \"1.3\"", ours.File))
	good := mustTLS(t, ours.File, clientCert, clientKey)
	within(t, 30*time.Second, func() error { return asks(t, r.endpoint, good) })
	old := good.Clone()
	old.MaxVersion = tls.VersionTLS12
	for name, c := range map[string]*tls.Config{
		"no certificate":           mustTLS(t, ours.File, "", ""),
		"a stranger's":             mustTLS(t, ours.File, foreignCert, foreignKey),
		"does not know the server": mustTLS(t, other.File, clientCert, clientKey),
		"an old version":           old,
	} {
		if err := asks(t, r.endpoint, c); err == nil {
			t.Errorf("let in: %s", name)
		}
	}
	if err := asksBy(t, r.endpoint, insecure.NewCredentials()); err == nil {
		t.Error("let in: in the clear")
	}
}

// A certificate that was renewed is used from the next connection on, and one that was
// revoked is not let in any more, without a restart.
func TestCertificatesAreReadAgain(t *testing.T) {
	t.Parallel()
	ca, next := certs.New(t, "ours"), certs.New(t, "next")
	cert, key := ca.Issue("server")
	clientCert, clientKey := ca.Issue("client")
	otherCert, otherKey := ca.Issue("other")
	crl := ca.Revoke()
	r := secured(t, cert, key, fmt.Sprintf("client_ca = %q\ncrl = %q", ca.File, crl))
	good, other := mustTLS(t, ca.File, clientCert, clientKey), mustTLS(t, ca.File, otherCert, otherKey)
	within(t, 30*time.Second, func() error { return errors.Join(asks(t, r.endpoint, good), asks(t, r.endpoint, other)) })
	ca.Revoke(otherCert)
	within(t, 30*time.Second, func() error {
		if asks(t, r.endpoint, other) == nil {
			return errors.New("the revoked one is let in")
		}
		return asks(t, r.endpoint, good)
	})
	// Damaged files change nothing.
	if err := os.WriteFile(crl, []byte("?"), 0o600); err != nil {
		t.Fatal(err)
	}
	time.Sleep(lookEvery + 100*time.Millisecond)
	if err := asks(t, r.endpoint, good); err != nil {
		t.Fatal(err)
	}
	if asks(t, r.endpoint, other) == nil {
		t.Fatal("the revoked one is let in by a list that can't be read")
	}
	ca.Revoke(otherCert)
	newCert, newKey := next.Issue("server")
	for from, to := range map[string]string{newCert: cert, newKey: key} {
		text, err := os.ReadFile(from)
		if err == nil {
			err = os.WriteFile(to, text, 0o600)
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	within(t, 30*time.Second, func() error { return asks(t, r.endpoint, mustTLS(t, next.File, clientCert, clientKey)) })
	if err := r.end(); err != nil {
		t.Fatal(err)
	}
	if !strings.Contains(r.log.String(), "no list of revoked certificates") {
		t.Error("the log does not say what is wrong with the list")
	}
}

func TestTLSFilesThatCanNotBeUsedAreNamed(t *testing.T) {
	t.Parallel()
	ca := certs.New(t, "ours")
	cert, key := ca.Issue("server")
	_, otherKey := ca.Issue("other")
	missing := filepath.Join(t.TempDir(), "missing.pem")
	for want, files := range map[string][3]string{missing: {missing, key, ""}, otherKey: {cert, otherKey, ""}, key: {cert, key, fmt.Sprintf("client_ca = %q", key)}} {
		r := secured(t, files[0], files[1], files[2])
		r.wg.Wait()
		if r.err == nil || !strings.Contains(r.err.Error(), want) {
			t.Errorf("%v: %v", files, r.err)
		}
	}
}

// getOver asks over TLS by HTTP, and gives the body and the version of HTTP.
func getOver(t *testing.T, endpoint, path string, c *tls.Config) (text, proto string, err error) {
	t.Helper()
	tr := &http.Transport{TLSClientConfig: c, ForceAttemptHTTP2: !slices.Equal(c.NextProtos, []string{"http/1.1"})}
	defer tr.CloseIdleConnections()
	resp, err := (&http.Client{Transport: tr, Timeout: 30 * time.Second}).Get("https://" + endpoint + path)
	if err != nil {
		return "", "", err
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	return string(body), resp.Proto, err
}

// What the versions and the suites allow is let in, by gRPC and by HTTP, and nothing else.
func TestVersionsAndCipherSuitesAreThoseOfTheFile(t *testing.T) {
	t.Parallel()
	ca := certs.New(t, "ours")
	cert, key := ca.Issue("server")
	with := func(min, max uint16, suites ...uint16) *tls.Config {
		c := mustTLS(t, ca.File, "", "")
		c.MinVersion, c.MaxVersion, c.CipherSuites = min, max, suites
		return c
	}
	const good, other = tls.TLS_ECDHE_ECDSA_WITH_AES_256_GCM_SHA384, tls.TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256
	for _, c := range []struct {
		more    string
		in, out []*tls.Config
	}{
		{`min_version = "1.3"`, []*tls.Config{with(tls.VersionTLS13, tls.VersionTLS13), with(tls.VersionTLS12, tls.VersionTLS13)}, []*tls.Config{with(tls.VersionTLS12, tls.VersionTLS12)}},
		{`max_version = "1.2"`, []*tls.Config{with(tls.VersionTLS12, tls.VersionTLS12), with(tls.VersionTLS12, tls.VersionTLS13)}, []*tls.Config{with(tls.VersionTLS13, tls.VersionTLS13)}},
		{"max_version = \"1.2\"\ncipher_suites = [\"TLS_ECDHE_ECDSA_WITH_AES_256_GCM_SHA384\"]", []*tls.Config{with(tls.VersionTLS12, 0, good), with(tls.VersionTLS12, 0, other, good)}, []*tls.Config{with(tls.VersionTLS12, 0, other), with(tls.VersionTLS10, tls.VersionTLS11)}},
	} {
		r := secured(t, cert, key, c.more)
		for i, client := range c.in {
			within(t, 30*time.Second, func() error { return asks(t, r.endpoint, client) })
			if _, _, err := getOver(t, r.endpoint, "/livez", client); err != nil {
				t.Errorf("%s: %d is refused: %v", c.more, i, err)
			}
		}
		for i, client := range c.out {
			if err := asks(t, r.endpoint, client); err == nil {
				t.Errorf("%s: let in by gRPC: %d", c.more, i)
			}
			if text, _, err := getOver(t, r.endpoint, "/livez", client); err == nil {
				t.Errorf("%s: let in by HTTP: %d, with %q", c.more, i, text)
			}
		}
	}
}

// Clients need their certificates for HTTP, too. Their names mean nothing, and may be missing.
func TestHTTPWithCertificatesOnBothSides(t *testing.T) {
	t.Parallel()
	ca, other := certs.New(t, "ours"), certs.New(t, "other")
	cert, key := ca.Issue("server")
	r := secured(t, cert, key, fmt.Sprintf("client_ca = %q\ncrl = %q", ca.File, ca.Revoke()))
	nameCert, nameKey := ca.Issue("client")
	lessCert, lessKey := ca.Issue("")
	goneCert, goneKey := ca.Issue("gone")
	strangeCert, strangeKey := other.Issue("client")
	ca.Revoke(goneCert)
	named := mustTLS(t, ca.File, nameCert, nameKey)
	within(t, 30*time.Second, func() error { return asks(t, r.endpoint, named) })
	for name, c := range map[string]*tls.Config{"with a name": named, "without a name": mustTLS(t, ca.File, lessCert, lessKey)} {
		for _, protos := range [][]string{nil, {"http/1.1"}} {
			c := c.Clone()
			c.NextProtos = protos
			text, proto, err := getOver(t, r.endpoint, "/health", c)
			if want := map[bool]string{true: "HTTP/2.0", false: "HTTP/1.1"}[protos == nil]; err != nil || !strings.Contains(text, `"true"`) || proto != want {
				t.Errorf("%s, offering %v: %q by %s, %v", name, protos, text, proto, err)
			}
		}
		tr := &http.Transport{TLSClientConfig: c.Clone()}
		resp, err := (&http.Client{Transport: tr, Timeout: 30 * time.Second}).Post("https://"+r.endpoint+"/v3/kv/range", "application/json", strings.NewReader(`{"key":"aw=="}`))
		if err != nil || resp.StatusCode != 200 {
			t.Errorf("%s: JSON: %v %v", name, resp, err)
		} else {
			_ = resp.Body.Close()
		}
		tr.CloseIdleConnections()
	}
	for name, c := range map[string]*tls.Config{
		"nothing": mustTLS(t, ca.File, "", ""), "a stranger's": mustTLS(t, ca.File, strangeCert, strangeKey), "a revoked one": mustTLS(t, ca.File, goneCert, goneKey),
	} {
		within(t, 30*time.Second, func() error { // the list is read once a second
			if text, _, err := getOver(t, r.endpoint, "/health", c); err == nil {
				return fmt.Errorf("let in with %s: %q", name, text)
			}
			return nil
		})
	}
}

// A new certificate is shown to who comes, and takes nothing from who is there.
func TestANewCertificateDropsNobody(t *testing.T) {
	t.Parallel()
	ca := certs.New(t, "ours")
	cert, key := ca.Issue("server")
	r := secured(t, cert, key, "")
	conf := mustTLS(t, ca.File, "", "")
	within(t, 30*time.Second, func() error { return asks(t, r.endpoint, conf) })
	conn, err := grpc.NewClient("passthrough:///"+r.endpoint, grpc.WithTransportCredentials(credentials.NewTLS(conf)))
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	w, err := pb.NewWatchClient(conn).Watch(t.Context())
	if err == nil {
		err = w.Send(&pb.WatchRequest{RequestUnion: &pb.WatchRequest_CreateRequest{CreateRequest: &pb.WatchCreateRequest{Key: []byte("k")}}})
	}
	if err == nil {
		_, err = w.Recv()
	}
	if err != nil {
		t.Fatal(err)
	}
	before := shown(t, r.endpoint)
	ca.Issue("server") // over the older one
	within(t, 30*time.Second, func() error {
		if shown(t, r.endpoint).Equal(before) {
			return errors.New("the old one is shown")
		}
		return nil
	})
	if _, err := pb.NewKVClient(conn).Put(t.Context(), &pb.PutRequest{Key: []byte("k")}); err != nil {
		t.Error(err)
	}
	if resp, err := w.Recv(); err != nil || len(resp.Events) != 1 {
		t.Errorf("%v %v", resp, err)
	}
}

// A list of revoked certificates is one in PEM or DER, or several, with or without text between.
func TestRevocationsAreReadInEveryForm(t *testing.T) {
	ours, other := certs.New(t, "ours"), certs.New(t, "other")
	first, _ := ours.Issue("a")
	second, _ := other.Issue("b")
	one, err := os.ReadFile(ours.Revoke(first))
	if err != nil {
		t.Fatal(err)
	}
	two, err := os.ReadFile(other.Revoke(second))
	if err != nil {
		t.Fatal(err)
	}
	block, _ := pem.Decode(one)
	for name, c := range map[string]struct {
		text []byte
		n    int
	}{
		"PEM": {one, 1}, "DER": {block.Bytes, 1}, "two in PEM": {append(slices.Clone(one), two...), 2},
		"text around": {slices.Concat([]byte("CRL of ours\n"), one, []byte("and theirs\n"), two, []byte("\n")), 2},
		"nobody":      {mustRead(t, ours.Revoke()), 0},
	} {
		if revoked, err := revokedBy(c.text); err != nil || len(revoked) != c.n {
			t.Errorf("%s: %v %v", name, revoked, err)
		}
	}
	for name, text := range map[string][]byte{"nothing": nil, "a certificate": mustRead(t, first), "half of one": block.Bytes[:len(block.Bytes)/2]} {
		if revoked, err := revokedBy(text); err == nil {
			t.Errorf("%s: %v", name, revoked)
		}
	}
}

func mustRead(t *testing.T, file string) []byte {
	t.Helper()
	text, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	return text
}

// A client of gRPC that offers http/1.1, too, is served by another server, with the same bounds.
func TestAClientOfGRPCThatOffersBothIsServedAlike(t *testing.T) {
	t.Parallel()
	ca := certs.New(t, "ours")
	cert, key := ca.Issue("server")
	r := secured(t, cert, key, "[grpc]\nmax_concurrent_streams = 2")
	conf := mustTLS(t, ca.File, "", "")
	conf.NextProtos = []string{"h2", "http/1.1"}
	conn, err := grpc.NewClient("passthrough:///"+r.endpoint, grpc.WithTransportCredentials(credentials.NewTLS(conf)))
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	within(t, 30*time.Second, func() error {
		_, err := pb.NewKVClient(conn).Put(t.Context(), &pb.PutRequest{Key: []byte("k")})
		return err
	})
	_, err = pb.NewKVClient(conn).Range(t.Context(), &pb.RangeRequest{Key: []byte("k"), Revision: 1000})
	if want := rpctypes.ErrGRPCFutureRev; status.Code(err) != codes.OutOfRange || status.Convert(err).Message() != status.Convert(want).Message() {
		t.Errorf("%v", err)
	}
	openWatches(t, conn, 2)
	noMoreWatches(t, conn)
	began := time.Now()
	if err := r.end(); err != nil { // with streams open
		t.Error(err)
	}
	if d := time.Since(began); d > 30*time.Second { // without the bound of a second it would not end
		t.Errorf("draining took %v", d)
	}
}
