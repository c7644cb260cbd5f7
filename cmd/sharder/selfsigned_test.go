package main

import (
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"google.golang.org/grpc/credentials/insecure"

	"github.com/sharder/sharder/conf"
	"github.com/sharder/sharder/integration/etcdtest"
)

// shown is the certificate that a server shows to who believes everything.
func shown(t *testing.T, endpoint string) *x509.Certificate {
	t.Helper()
	c, err := tls.Dial("tcp", endpoint, &tls.Config{InsecureSkipVerify: true, NextProtos: []string{"h2"}})
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	return c.ConnectionState().PeerCertificates[0]
}

func TestASharderMakesACertificateAndKeepsIt(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	e := etcdtest.Start(t)
	toml := fmt.Sprintf("data_dir = %q\n[tls]\nauto = true\nauto_validity = \"48h\"\n[shards.a]\nendpoints = [%q]\n", dir, e.Endpoint)
	r := start(t, toml)
	any := &tls.Config{InsecureSkipVerify: true}
	within(t, 30*time.Second, func() error { return asks(t, r.endpoint, any) })
	first := shown(t, r.endpoint)
	if left := time.Until(first.NotAfter); left < 47*time.Hour || left > 48*time.Hour {
		t.Errorf("it is valid for %v", left)
	}
	// Who has got hold of it can check by it whom he talks to.
	known := mustTLS(t, filepath.Join(dir, "auto.tls", "cert.pem"), "", "")
	if err := asks(t, r.endpoint, known); err != nil {
		t.Error(err)
	}
	if err := asksBy(t, r.endpoint, insecure.NewCredentials()); err == nil {
		t.Error("let in: in the clear")
	}
	if err := r.end(); err != nil {
		t.Fatal(err)
	}
	if !strings.Contains(r.log.String(), "a certificate was made that no client can check") {
		t.Error("the log does not warn")
	}
	r = start(t, toml)
	within(t, 30*time.Second, func() error { return asks(t, r.endpoint, known) })
	if again := shown(t, r.endpoint); !again.Equal(first) {
		t.Error("a restart has changed it")
	}
}

func TestACertificateIsMadeAnewBeforeItEnds(t *testing.T) {
	for _, dir := range []string{"", t.TempDir()} {
		cfg := &conf.Config{DataDir: dir, Listen: []string{"192.0.2.1:2379"}, TLS: &conf.ServerTLS{AutoValidity: time.Hour}}
		a := newSelfSigned(cfg, slog.New(slog.DiscardHandler))
		first, key, err := a.pair()
		if err != nil {
			t.Fatal(err)
		}
		pair, err := tls.X509KeyPair(first, key)
		if err != nil {
			t.Fatal(err)
		}
		for _, host := range []string{"localhost", "127.0.0.1", "192.0.2.1"} {
			if err := pair.Leaf.VerifyHostname(host); err != nil {
				t.Error(err)
			}
		}
		if again, _, _ := a.pair(); string(again) != string(first) {
			t.Error("it was made anew without need")
		}
		a.until = time.Now().Add(5 * time.Minute)
		if next, _, err := a.pair(); err != nil || string(next) == string(first) {
			t.Errorf("it was not made anew: %v", err)
		}
	}
}

// Files that can't be used, a key that does not fit, are replaced; a directory that can't be
// written to is told.
func TestACertificateThatCanNotBeUsedIsMadeAnew(t *testing.T) {
	dir := t.TempDir()
	cfg := &conf.Config{DataDir: dir, TLS: &conf.ServerTLS{AutoValidity: time.Hour}}
	log := slog.New(slog.DiscardHandler)
	a := newSelfSigned(cfg, log)
	first, _, err := a.pair()
	if err != nil {
		t.Fatal(err)
	}
	_, keyFile := a.files()
	if info, err := os.Stat(keyFile); err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("the key: %v %v", info.Mode(), err)
	}
	if err := os.WriteFile(keyFile, []byte("?"), 0o600); err != nil {
		t.Fatal(err)
	}
	next, key, err := newSelfSigned(cfg, log).pair()
	if _, bad := tls.X509KeyPair(next, key); err != nil || bad != nil || string(next) == string(first) {
		t.Errorf("%v", errors.Join(err, bad))
	}
	if err := os.WriteFile(filepath.Join(dir, "file"), nil, 0o600); err != nil {
		t.Fatal(err)
	}
	cfg.DataDir = filepath.Join(dir, "file")
	if _, _, err := newSelfSigned(cfg, log).pair(); err == nil || !strings.Contains(err.Error(), "[tls] auto") {
		t.Errorf("%v", err)
	}
}
