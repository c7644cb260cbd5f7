package grpcproxy_test

import (
	"context"
	"crypto/tls"
	"net/http"
	"strings"
	"testing"
	"time"

	"go.uber.org/zap"

	clientv3 "go.etcd.io/etcd/client/v3"

	"github.com/sharder/sharder/integration/certs"
	"github.com/sharder/sharder/integration/ports"
)

// TLS towards clients: who is let in is who etcd would let in with the same files.
func TestTheFlagsOfTLSTowardsClients(t *testing.T) {
	t.Parallel()
	s := newSecure(t)
	revoked, revokedKey := s.front.Issue("bad")
	list := s.front.Revoke(revoked)
	stranger := certs.New(t, "stranger")
	strangers, strangersKey := stranger.Issue("stranger")
	const suite = "TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256"
	addr, _ := s.start(t, append(s.near, "--client-crl-file", list, "--listen-cipher-suites", suite, "--tls-min-version", "TLS1.2", "--tls-max-version", "TLS1.2")...)
	with := func(change func(c *tls.Config)) *tls.Config { c := s.client.Clone(); change(c); return c }
	for name, c := range map[string]struct {
		config *tls.Config
		ok     bool
	}{
		"its certificate": {s.client, true},
		"none":            {with(func(c *tls.Config) { c.Certificates = nil }), false},
		"a revoked one":   {config(t, s.front, revoked, revokedKey), false},
		"a stranger's":    {config(t, s.front, strangers, strangersKey), false},
		"TLS 1.3":         {with(func(c *tls.Config) { c.MinVersion = tls.VersionTLS13 }), false},
		"the suite":       {with(func(c *tls.Config) { c.CipherSuites = []uint16{tls.TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256} }), true},
		"another suite":   {with(func(c *tls.Config) { c.CipherSuites = []uint16{tls.TLS_ECDHE_ECDSA_WITH_AES_256_GCM_SHA384} }), false},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			if _, err := dial(t, addr, c.config); (err == nil) != c.ok {
				t.Errorf("let in: %v (%v), want %v", err == nil, err, c.ok)
			}
		})
	}
}

// Without --trusted-ca-file nobody needs a certificate; --auto-tls makes one that is kept.
func TestTLSWithoutCertificatesOfClients(t *testing.T) {
	t.Parallel()
	s := newSecure(t)
	addr, _ := s.start(t, s.near[:4]...)
	anybody := s.client.Clone()
	anybody.Certificates = nil
	if _, err := dial(t, addr, anybody); err != nil {
		t.Error(err)
	}
	dir := t.TempDir()
	var made []byte
	for range 2 {
		addr, p := s.start(t, "--auto-tls", "--self-signed-cert-validity", "2", "--data-dir", dir)
		conn, err := tls.Dial("tcp", addr, &tls.Config{InsecureSkipVerify: true})
		if err != nil {
			t.Fatal(err)
		}
		cert := conn.ConnectionState().PeerCertificates[0]
		conn.Close()
		if y := cert.NotAfter.Sub(cert.NotBefore).Hours() / 24 / 365; y < 1.9 || y > 2.1 {
			t.Errorf("it is good for %.1f years, want 2", y)
		}
		if made != nil && string(made) != string(cert.Raw) {
			t.Error("the second start has made another one")
		}
		made = cert.Raw
		p.Kill()
	}
}

// TLS towards members: with the files of grpc-proxy, without a certificate that is good, and with
// --insecure-skip-tls-verify.
func TestTheFlagsOfTLSTowardsMembers(t *testing.T) {
	t.Parallel()
	s := newSecure(t)
	own := s.far
	stranger := certs.New(t, "stranger")
	const refused = 4 * time.Second // is enough for what must not go well
	try := func(bound time.Duration, far ...string) error {
		s.far = append([]string{"--endpoints", s.cluster.Endpoint(0)}, far...)
		addr, _ := s.start(t)
		c, err := clientv3.New(clientv3.Config{Endpoints: []string{addr}, Logger: zap.NewNop()})
		if err != nil {
			return err
		}
		defer c.Close()
		ctx, cancel := context.WithTimeout(t.Context(), bound)
		defer cancel()
		return second(c.Put(ctx, "k", "v"))
	}
	if err := try(soon, own[2:]...); err != nil {
		t.Errorf("with all three files: %v", err)
	}
	if err := try(refused, own[2:6]...); err == nil {
		t.Error("without --cacert the members are trusted")
	}
	if err := try(refused, append(own[2:6:6], "--cacert", stranger.File)...); err == nil {
		t.Error("members are trusted that somebody else has signed for")
	}
	if err := try(refused, "--cacert", s.members.File); err == nil {
		t.Error("members take a proxy without a certificate")
	}
	if err := try(soon, append(own[2:6:6], "--insecure-skip-tls-verify")...); err != nil {
		t.Errorf("with --insecure-skip-tls-verify: %v", err)
	}
}

// Names in certificates are not users through a proxy: not the client's, since the connection to
// etcd is not his, and not sharder's own. grpc-proxy must not have a name in its certificate
// because of that; here etcd is told.
func TestNamesInCertificatesAreNobody(t *testing.T) {
	t.Parallel()
	s := newSecure(t, "--bcrypt-cost", "4")
	admin := s.cluster.Client() // whose certificate is named proxy
	for _, err := range []error{
		second(admin.UserAdd(t.Context(), "root", "root")), second(admin.UserGrantRole(t.Context(), "root", "root")),
		second(admin.UserAdd(t.Context(), "proxy", "proxy")), second(admin.UserGrantRole(t.Context(), "proxy", "root")),
		second(admin.UserAdd(t.Context(), "client", "client")), second(admin.UserGrantRole(t.Context(), "client", "root")),
		second(admin.AuthEnable(t.Context())),
	} {
		if err != nil {
			t.Fatal(err)
		}
	}
	if _, err := admin.Get(t.Context(), "k"); err != nil {
		t.Fatalf("etcd does not take the name for the user: %v", err)
	}
	addr, _ := s.start(t, s.near...)
	_, err := dial(t, addr, s.client)
	if err == nil || !strings.Contains(err.Error(), "user name is empty") {
		t.Errorf("a client without a token: %v", err)
	}
	c, err := clientv3.New(clientv3.Config{Endpoints: []string{"https://" + addr}, TLS: s.client, Username: "client", Password: "client", Logger: zap.NewNop()})
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	if _, err := c.Get(t.Context(), "k"); err != nil {
		t.Errorf("a client with a token: %v", err)
	}
}

// What --debug and --experimental-enable-grpc-logging say: more, and nothing of what it is about.
// grpc-proxy logs values and passwords.
func TestTheLogTellsNoSecrets(t *testing.T) {
	t.Parallel()
	d := open(t, sharder, &probe{flags: []string{"--debug", "--experimental-enable-grpc-logging"}})
	if err := d.withUsers(t.Context()); err != nil {
		t.Fatal(err)
	}
	const secret = "a-secret-that-is-nobodys-business"
	root := d.client("root")
	if _, err := root.Put(t.Context(), "k/"+secret, secret); err != nil {
		t.Fatal(err)
	}
	if _, err := root.UserAdd(t.Context(), "dora", secret); err != nil {
		t.Fatal(err)
	}
	d.proxy.WaitLog(soon, "KV/Put")
	log := d.proxy.WaitLog(soon, "UserAdd")
	if !strings.Contains(log, "/etcdserverpb.KV/Put") && !strings.Contains(log, "KV/Put") {
		t.Errorf("the put is not in the log:\n%s", log)
	}
	if strings.Contains(log, secret) {
		t.Errorf("the secret is in the log:\n%s", log)
	}
	quiet := open(t, sharder, &probe{})
	if _, err := quiet.client().Put(t.Context(), "k", "v"); err != nil {
		t.Fatal(err)
	}
	if text := quiet.proxy.Stderr.String(); strings.Contains(text, "KV/Put") || strings.Contains(text, "level=DEBUG") {
		t.Errorf("requests are logged that nobody wants logged:\n%s", text)
	}
}

// --metrics-addr https:// is served with the certificate of the client port and by its rules, as
// etcd's own does; what comes behind the host means nothing.
func TestMetricsAreServedOverTLS(t *testing.T) {
	t.Parallel()
	s := newSecure(t)
	revoked, revokedKey := s.front.Issue("bad")
	metrics := ports.Of(t)
	s.start(t, append(s.near, "--client-crl-file", s.front.Revoke(revoked), "--metrics-addr", "https://"+metrics+"/metrics")...)
	none := s.client.Clone()
	none.Certificates = nil
	ask := func(url string, c *tls.Config) (int, error) {
		h := http.Client{Timeout: soon, Transport: &http.Transport{DisableKeepAlives: true, TLSClientConfig: c}}
		r, err := h.Get(url)
		if err != nil {
			return 0, err
		}
		return r.StatusCode, r.Body.Close()
	}
	for _, path := range []string{"/metrics", "/proxy/metrics", "/health", "/proxy/health"} {
		if code, err := ask("https://"+metrics+path, s.client); err != nil || code != 200 {
			t.Errorf("%s: %d %v", path, code, err)
		}
	}
	for name, c := range map[string]*tls.Config{"no certificate": none, "a revoked one": config(t, s.front, revoked, revokedKey)} {
		if code, err := ask("https://"+metrics+"/metrics", c); err == nil {
			t.Errorf("let in with %s: %d", name, code)
		}
	}
	if code, _, err := get("http://" + metrics + "/metrics"); err != nil || code != 400 {
		t.Errorf("in the clear: %d %v", code, err)
	}
	auto := ports.Of(t)
	s.start(t, "--auto-tls", "--data-dir", t.TempDir(), "--metrics-addr", "https://"+auto)
	if code, err := ask("https://"+auto+"/health", &tls.Config{InsecureSkipVerify: true}); err != nil || code != 200 {
		t.Errorf("with --auto-tls: %d %v", code, err)
	}
	// Empty is none, and in the clear it is in the clear beside a certificate.
	s.start(t, append(s.near, "--metrics-addr", "")...)
	clear := ports.Of(t)
	s.start(t, append(s.near, "--metrics-addr", "http://"+clear)...)
	if code, _, err := get("http://" + clear + "/metrics"); err != nil || code != 200 {
		t.Errorf("http:// beside a certificate: %d %v", code, err)
	}
}
