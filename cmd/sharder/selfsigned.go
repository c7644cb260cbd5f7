package main

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"fmt"
	"log/slog"
	"math/big"
	"net"
	"os"
	"path/filepath"
	"time"

	"github.com/sharder/sharder/conf"
)

// selfSigned makes certificates that nobody else has signed: [tls] auto. What is made is kept
// in a directory, so that a restart does not change it, or in memory without one. It is not
// safe for use from several goroutines.
type selfSigned struct {
	dir      string // empty: in memory
	hosts    []string
	validity time.Duration
	log      *slog.Logger

	cert, key []byte // PEM; nil before the first
	until     time.Time
}

// newSelfSigned makes none yet. The certificate is for the hosts of all who listen, and for the
// names that this machine has anyway.
func newSelfSigned(cfg *conf.Config, log *slog.Logger) *selfSigned {
	a := &selfSigned{validity: cfg.TLS.AutoValidity, log: log, hosts: []string{"localhost", "127.0.0.1", "::1"}}
	if cfg.DataDir != "" {
		a.dir = filepath.Join(cfg.DataDir, "auto.tls") // no cluster's directory: these have no dot
	}
	if name, err := os.Hostname(); err == nil {
		a.hosts = append(a.hosts, name)
	}
	all := cfg.Listeners()
	if l, ok := cfg.Operators(); ok {
		all = append(all, l)
	}
	for _, l := range all {
		host, _, err := net.SplitHostPort(l.Address)
		if l.Network == "unix" { // etcd's clients take the file's name for the host
			host, err = filepath.Base(l.Address), nil
		}
		if ip := net.ParseIP(host); err == nil && host != "" && (ip == nil || !ip.IsUnspecified()) {
			a.hosts = append(a.hosts, host)
		}
	}
	return a
}

// files are where the certificate and the key are, if there is a directory.
func (a *selfSigned) files() (cert, key string) {
	return filepath.Join(a.dir, "cert.pem"), filepath.Join(a.dir, "key.pem")
}

// pair gives a certificate with its key, made anew if a tenth of the time is left.
func (a *selfSigned) pair() (cert, key []byte, err error) {
	if a.cert == nil && a.dir != "" {
		a.read()
	}
	if a.cert == nil || time.Until(a.until) < a.validity/10 {
		if err := a.make(); err != nil {
			return nil, nil, fmt.Errorf("[tls] auto: %w", err)
		}
	}
	return a.cert, a.key, nil
}

// read takes what an earlier run has made. What is of no use is made anew.
func (a *selfSigned) read() {
	certFile, keyFile := a.files()
	cert, err := os.ReadFile(certFile)
	if err != nil {
		return
	}
	key, err := os.ReadFile(keyFile)
	if err != nil {
		return
	}
	if pair, err := tls.X509KeyPair(cert, key); err == nil {
		a.cert, a.key, a.until = cert, key, pair.Leaf.NotAfter
	}
}

// make makes a certificate as etcd makes its own, and keeps it.
func (a *selfSigned) make() error {
	serial, err := rand.Int(rand.Reader, new(big.Int).Lsh(big.NewInt(1), 128))
	if err != nil {
		return err
	}
	template := x509.Certificate{
		SerialNumber: serial, Subject: pkix.Name{Organization: []string{"sharder"}},
		NotBefore: time.Now(), NotAfter: time.Now().Add(a.validity),
		KeyUsage:    x509.KeyUsageKeyEncipherment | x509.KeyUsageDigitalSignature | x509.KeyUsageCertSign,
		ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth}, BasicConstraintsValid: true, IsCA: true,
	}
	for _, host := range a.hosts {
		if ip := net.ParseIP(host); ip != nil {
			template.IPAddresses = append(template.IPAddresses, ip)
		} else {
			template.DNSNames = append(template.DNSNames, host)
		}
	}
	private, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return err
	}
	der, err := x509.CreateCertificate(rand.Reader, &template, &template, &private.PublicKey, private)
	if err != nil {
		return err
	}
	text, err := x509.MarshalECPrivateKey(private)
	if err != nil {
		return err
	}
	a.cert = pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der})
	a.key = pem.EncodeToMemory(&pem.Block{Type: "EC PRIVATE KEY", Bytes: text})
	a.until = template.NotAfter
	a.log.Warn("TLS: a certificate was made that no client can check: what is sent can't be listened to, but may be sent to somebody else", "until", a.until.Format(time.RFC3339))
	return a.write()
}

// write keeps what was made. Half of it is as good as nothing: see read.
func (a *selfSigned) write() error {
	if a.dir == "" {
		return nil
	}
	if err := os.MkdirAll(a.dir, 0o700); err != nil {
		return err
	}
	certFile, keyFile := a.files()
	if err := os.WriteFile(keyFile, a.key, 0o600); err != nil {
		return err
	}
	return os.WriteFile(certFile, a.cert, 0o644)
}
