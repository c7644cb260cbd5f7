package main

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/sharder/sharder/integration/certs"
	"github.com/sharder/sharder/integration/etcdtest"
	"github.com/sharder/sharder/stages/backend"
	clientv3 "go.etcd.io/etcd/client/v3"
)

// secured starts a sharder that serves TLS, with more lines in its table.
func secured(t *testing.T, cert, key, more string) *sharderRun {
	t.Helper()
	e := etcdtest.Start(t)
	return start(t, fmt.Sprintf("drain_timeout = \"1s\"\n[tls]\ncert = %q\nkey = %q\n%s\n[shards.a]\nendpoints = [%q]\n[routes]\n\"\" = \"a\"\n", cert, key, more, e.Endpoint))
}

// asks makes one request over TLS.
func asks(t *testing.T, endpoint string, conf *tls.Config) error {
	t.Helper()
	c, err := clientv3.New(clientv3.Config{Endpoints: []string{"https://" + endpoint}, TLS: conf, DialTimeout: 5 * time.Second})
	if err != nil {
		return err
	}
	defer c.Close()
	ctx, cancel := context.WithTimeout(t.Context(), 3*time.Second)
	defer cancel()
	_, err = c.Get(ctx, "k")
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
	if err := put(etcdtest.Client(t, r.endpoint), "k"); err == nil {
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
