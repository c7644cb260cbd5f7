package main

import (
	"crypto/tls"
	"errors"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/sharder/sharder/conf"
	"github.com/sharder/sharder/integration/certs"
	"github.com/sharder/sharder/integration/etcdtest"
	"github.com/sharder/sharder/integration/ports"
)

// reachable waits until a page of the HTTP side for operators is answered over TLS.
func reachable(t *testing.T, address string, c *tls.Config) {
	t.Helper()
	within(t, 30*time.Second, func() error {
		text, proto, err := getOver(t, address, "/readyz", c)
		if err == nil && (text != "ok\n" || proto != "HTTP/2.0") {
			err = fmt.Errorf("%q by %s", text, proto)
		}
		return err
	})
}

// The HTTP side for operators lets in whom the client port lets in.
func TestOperatorsComeOverTLSByTheRulesOfClients(t *testing.T) {
	t.Parallel()
	ca, other := certs.New(t, "ours"), certs.New(t, "other")
	cert, key := ca.Issue("server")
	goodCert, goodKey := ca.Issue("prometheus")
	goneCert, goneKey := ca.Issue("gone")
	strangeCert, strangeKey := other.Issue("prometheus")
	crl := ca.Revoke(goneCert)
	address := ports.Of(t)
	r := secured(t, cert, key, fmt.Sprintf("client_ca = %q\ncrl = %q\nmin_version = \"1.3\"\n", ca.File, crl), "https://"+address)
	good := mustTLS(t, ca.File, goodCert, goodKey)
	reachable(t, address, good)
	if text, _, err := getOver(t, address, "/metrics", good); err != nil || !strings.Contains(text, "sharder_door_inside 0\n") {
		t.Errorf("%v %s", err, text)
	}
	old := good.Clone()
	old.MaxVersion = tls.VersionTLS12
	for name, c := range map[string]*tls.Config{
		"nothing": mustTLS(t, ca.File, "", ""), "a stranger's": mustTLS(t, ca.File, strangeCert, strangeKey),
		"a revoked one": mustTLS(t, ca.File, goneCert, goneKey), "an old version": old,
	} {
		for _, at := range []string{address, r.endpoint} {
			if text, _, err := getOver(t, at, "/metrics", c); err == nil {
				t.Errorf("let in at %s with %s: %q", at, name, text)
			}
		}
	}
	if code, body := fetch(address, "/metrics"); code != http.StatusBadRequest || !strings.Contains(body, "HTTP request to an HTTPS server") {
		t.Errorf("in the clear: %d %q", code, body)
	}
	if err := r.end(); err != nil {
		t.Fatal(err)
	}
	if want := "/readyz on https://" + address + "\n"; !strings.Contains(r.out.String(), want) {
		t.Errorf("no %q in %q", want, r.out.String())
	}
}

// Operators are shown a renewed certificate, and are revoked, without a restart.
func TestTheFilesOfOperatorsAreReadAgain(t *testing.T) {
	t.Parallel()
	ca := certs.New(t, "ours")
	cert, key := ca.Issue("server")
	goodCert, goodKey := ca.Issue("prometheus")
	otherCert, otherKey := ca.Issue("other")
	address := ports.Of(t)
	secured(t, cert, key, fmt.Sprintf("client_ca = %q\ncrl = %q\n", ca.File, ca.Revoke()), "https://"+address)
	good, other := mustTLS(t, ca.File, goodCert, goodKey), mustTLS(t, ca.File, otherCert, otherKey)
	reachable(t, address, good)
	reachable(t, address, other)
	ca.Revoke(otherCert)
	before := shown(t, address)
	ca.Issue("server") // over the older one
	within(t, 30*time.Second, func() error {
		if shown(t, address).Equal(before) {
			return errors.New("the old certificate is shown")
		}
		if _, _, err := getOver(t, address, "/livez", other); err == nil {
			return errors.New("the revoked one is let in")
		}
		return nil
	})
	reachable(t, address, good)
}

// Only what metrics says is over TLS is: without a scheme it is in the clear beside [tls], and
// https alone may be what [tls] is for. One certificate that sharder makes is for all.
func TestTheSchemeOfMetricsDecidesWhetherItIsTLS(t *testing.T) {
	t.Parallel()
	e := etcdtest.Start(t)
	const toml = "[tls]\nauto = true\n[shards.a]\nendpoints = [%q]\n"
	clear := ports.Of(t)
	for _, scheme := range []string{"", "http://"} {
		r := start(t, fmt.Sprintf("metrics = %q\n"+toml, scheme+clear, e.Endpoint))
		answers(t, clear, "/readyz", 200, "ok\n")
		if err := r.end(); err != nil {
			t.Fatal(err)
		}
	}
	plain, secure := ports.Of(t), ports.Of(t)
	startAll(t, fmt.Sprintf("listen = [\"http://%s\"]\nmetrics = \"https://%s/\"\n"+toml, plain, secure, e.Endpoint))
	reachable(t, secure, &tls.Config{InsecureSkipVerify: true})
	answers(t, plain, "/readyz", 200, "ok\n")
	both, again := ports.Of(t), ports.Of(t)
	startAll(t, fmt.Sprintf("listen = [%q]\nmetrics = \"https://%s\"\n"+toml, both, again, e.Endpoint))
	reachable(t, again, &tls.Config{InsecureSkipVerify: true})
	if !shown(t, both).Equal(shown(t, again)) {
		t.Error("clients and operators are shown different certificates")
	}
}

func TestGatewaysAloneHaveAnHTTPSideOverTLS(t *testing.T) {
	t.Parallel()
	ca := certs.New(t, "ours")
	cert, key := ca.Issue("server")
	address, listen := ports.Of(t), ports.Of(t)
	cfg, err := conf.Parse("test.toml", []byte(fmt.Sprintf("metrics = \"https://%s\"\n[tls]\ncert = %q\nkey = %q\n[gateways.g]\nlisten = %q\nendpoints = [%q]\n",
		address, cert, key, listen, etcdtest.Start(t).Endpoint)))
	if err != nil {
		t.Fatal(err)
	}
	gatewayRun(t, cfg)
	reachable(t, address, mustTLS(t, ca.File, "", ""))
	if err := put(etcdtest.Client(t, listen), "k"); err != nil {
		t.Error(err)
	}
}

// sharder status asks over TLS, and on a socket, as metrics says.
func TestStatusAsksOverTLSAndOnASocket(t *testing.T) {
	t.Parallel()
	ca := certs.New(t, "ours")
	cert, key := ca.Issue("server")
	ownCert, ownKey := ca.Issue("operator")
	dir := t.TempDir()
	toml := fmt.Sprintf("data_dir = %q\n%%s[shards.a]\nembedded = true\n", filepath.Join(dir, "data"))
	table := fmt.Sprintf("[tls]\ncert = %q\nkey = %q\nclient_ca = %q\n", cert, key, ca.File)
	flags := []string{"--cacert", ca.File, "--cert", ownCert, "--key", ownKey}
	address, socket := ports.Of(t), filepath.Join(dir, "s")
	for _, c := range []struct {
		metrics, table string
		flags          []string
	}{
		{"https://" + address, table, flags}, {"unixs://" + socket, table, append(flags, "--insecure-skip-tls-verify")}, {"unix://" + socket, "", nil},
	} {
		seen := fmt.Sprintf("metrics = %q\n"+toml, c.metrics, c.table)
		r := start(t, seen)
		within(t, 30*time.Second, func() error {
			if code, _, stderr := statusOf(t, seen, c.flags...); code != 0 {
				return errors.New(stderr)
			}
			return nil
		})
		within(t, 30*time.Second, func() error { // a running sharder does not wait long for its clusters
			if code, stdout, stderr := statusOf(t, alone("127.0.0.1:1"), append(c.flags, "--endpoint", c.metrics)...); code != 0 || !strings.Contains(stdout, "a running sharder at ") {
				return fmt.Errorf("%s: exit %d: %s%s", c.metrics, code, stdout, stderr)
			}
			return nil
		})
		within(t, 30*time.Second, func() error {
			if code, _, stderr := statusOf(t, seen); (code == 0) != (c.table == "") {
				return fmt.Errorf("%s without a certificate: exit %d: %s", c.metrics, code, stderr)
			}
			return nil
		})
		if err := r.end(); err != nil {
			t.Fatal(err)
		}
		if _, err := os.Stat(socket); err == nil {
			t.Error("the socket is left behind")
		}
	}
	for want, args := range map[string][]string{"--cert and --key": {"--cert", ownCert}, "--endpoint: ": {"--endpoint", "ftp://" + address}} {
		if code, _, stderr := statusOf(t, alone("127.0.0.1:1"), args...); code == 0 || !strings.Contains(stderr, want) {
			t.Errorf("%q: exit %d: %s", args, code, stderr)
		}
	}
}
