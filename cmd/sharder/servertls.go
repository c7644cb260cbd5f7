package main

import (
	"bytes"
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"sync"
	"time"

	"github.com/sharder/sharder/conf"
)

// servingTLS is the server's side of TLS as its files say: they are read again, at a
// handshake, when they have changed. While what is there can't be used the last good state
// goes on, and the log says why.
type servingTLS struct {
	conf conf.ServerTLS
	log  *slog.Logger

	mu     sync.Mutex
	good   *tls.Config
	read   []byte // what the files held
	looked time.Time
}

// lookEvery bounds how often the files are looked at.
const lookEvery = time.Second

// newServingTLS reads the files. Its error names the one that can't be used.
func newServingTLS(c conf.ServerTLS, log *slog.Logger) (*tls.Config, error) {
	s := &servingTLS{conf: c, log: log}
	if err := s.load(); err != nil {
		return nil, err
	}
	return &tls.Config{
		MinVersion: s.good.MinVersion, NextProtos: []string{"h2"},
		GetConfigForClient: func(*tls.ClientHelloInfo) (*tls.Config, error) { return s.current(), nil },
	}, nil
}

// current is the newest that can be used.
func (s *servingTLS) current() *tls.Config {
	s.mu.Lock()
	defer s.mu.Unlock()
	if time.Since(s.looked) >= lookEvery {
		s.looked = time.Now()
		if err := s.load(); err != nil {
			s.log.Error("TLS: the files have changed and can't be used; what was there before goes on", "error", err)
		}
	}
	return s.good
}

// load reads the files, if they are others than before. What can't be used is told once.
func (s *servingTLS) load() error {
	files := map[string][]byte{}
	var all []byte
	for _, name := range []string{s.conf.Cert, s.conf.Key, s.conf.ClientCA, s.conf.CRL} {
		if name == "" {
			continue
		}
		text, err := os.ReadFile(name)
		if err != nil {
			return fmt.Errorf("[tls]: %w", err)
		}
		files[name] = text
		all = append(append(all, 0), text...)
	}
	if bytes.Equal(all, s.read) {
		return nil
	}
	s.read = all
	good, err := s.make(files)
	if err == nil {
		s.good = good
	}
	return err
}

func (s *servingTLS) make(files map[string][]byte) (*tls.Config, error) {
	pair, err := tls.X509KeyPair(files[s.conf.Cert], files[s.conf.Key])
	if err != nil {
		return nil, fmt.Errorf("[tls]: %s and %s: %w", s.conf.Cert, s.conf.Key, err)
	}
	c := &tls.Config{MinVersion: tls.VersionTLS12, Certificates: []tls.Certificate{pair}, NextProtos: []string{"h2"}}
	if s.conf.MinVersion == "1.3" {
		c.MinVersion = tls.VersionTLS13
	}
	for _, suite := range tls.CipherSuites() {
		for _, name := range s.conf.CipherSuites {
			if suite.Name == name {
				c.CipherSuites = append(c.CipherSuites, suite.ID)
			}
		}
	}
	if s.conf.ClientCA == "" {
		return c, nil
	}
	c.ClientAuth, c.ClientCAs = tls.RequireAndVerifyClientCert, x509.NewCertPool()
	if !c.ClientCAs.AppendCertsFromPEM(files[s.conf.ClientCA]) {
		return nil, fmt.Errorf("[tls]: %s: no certificate in PEM form in this file", s.conf.ClientCA)
	}
	if s.conf.CRL == "" {
		return c, nil
	}
	revoked, err := revokedBy(files[s.conf.CRL])
	if err != nil {
		return nil, fmt.Errorf("[tls]: %s: %w", s.conf.CRL, err)
	}
	c.VerifyConnection = func(state tls.ConnectionState) error {
		for _, cert := range state.PeerCertificates {
			if revoked[string(cert.RawIssuer)+"/"+cert.SerialNumber.String()] {
				return fmt.Errorf("the certificate %s of %s is revoked", cert.SerialNumber, cert.Subject)
			}
		}
		return nil
	}
	return c, nil
}

// revokedBy reads lists of revoked certificates, PEM or DER, by issuer and serial number.
func revokedBy(text []byte) (map[string]bool, error) {
	var lists [][]byte
	for rest := text; ; {
		var block *pem.Block
		if block, rest = pem.Decode(rest); block == nil {
			break
		}
		lists = append(lists, block.Bytes)
	}
	if lists == nil {
		lists = [][]byte{text}
	}
	revoked := map[string]bool{}
	for _, der := range lists {
		list, err := x509.ParseRevocationList(der)
		if err != nil {
			return nil, errors.New("no list of revoked certificates in this file")
		}
		for _, e := range list.RevokedCertificateEntries {
			revoked[string(list.RawIssuer)+"/"+e.SerialNumber.String()] = true
		}
	}
	return revoked, nil
}
