package backend

import (
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"os"
	"sync/atomic"
)

// TLSConfig makes the client's side of TLS towards a cluster from PEM files. An
// empty ca means the system's roots; cert and key come together or not at all; an
// empty serverName means the host of each endpoint.
//
// The certificate is read again at every handshake, so that it can be rotated in
// place; while the files don't fit together the last good pair is used. The CA is
// read once. Errors name the file.
func TLSConfig(ca, cert, key, serverName string) (*tls.Config, error) {
	conf := &tls.Config{MinVersion: tls.VersionTLS12, ServerName: serverName}
	if ca != "" {
		pem, err := os.ReadFile(ca)
		if err != nil {
			return nil, fmt.Errorf("sharder: TLS CA: %w", err)
		}
		conf.RootCAs = x509.NewCertPool()
		if !conf.RootCAs.AppendCertsFromPEM(pem) {
			return nil, fmt.Errorf("sharder: TLS CA %s: no certificate in PEM form in this file", ca)
		}
	}
	if (cert == "") != (key == "") {
		return nil, errors.New("sharder: TLS: a certificate needs its key and a key its certificate; only one of the two files is named")
	}
	if cert == "" {
		return conf, nil
	}
	pair := &keyPair{cert: cert, key: key}
	if err := pair.load(); err != nil {
		return nil, err
	}
	conf.GetClientCertificate = func(*tls.CertificateRequestInfo) (*tls.Certificate, error) {
		_ = pair.load() // the last good one remains
		return pair.good.Load(), nil
	}
	return conf, nil
}

// keyPair is a certificate and its key on disk.
type keyPair struct {
	cert, key string
	good      atomic.Pointer[tls.Certificate]
}

// load reads both files and keeps them if they fit together.
func (p *keyPair) load() error {
	cert, err := os.ReadFile(p.cert)
	if err != nil {
		return fmt.Errorf("sharder: TLS certificate: %w", err)
	}
	key, err := os.ReadFile(p.key)
	if err != nil {
		return fmt.Errorf("sharder: TLS key: %w", err)
	}
	pair, err := tls.X509KeyPair(cert, key)
	if err != nil {
		return fmt.Errorf("sharder: TLS certificate %s with key %s: %w", p.cert, p.key, err)
	}
	p.good.Store(&pair)
	return nil
}
