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
	auto *selfSigned // nil where there are files
	log  *slog.Logger

	mu     sync.Mutex
	good   *tls.Config
	read   []byte // what the files held
	looked time.Time
}

// protocols are what is spoken inside, what is liked best first.
var protocols = []string{"h2", "http/1.1"}

// tlsVersions are the versions by their words in the configuration; no word is no bound.
var tlsVersions = map[string]uint16{"": 0, "1.2": tls.VersionTLS12, "1.3": tls.VersionTLS13}

// lookEvery bounds how often the files are looked at.
const lookEvery = time.Second

// newServingTLS reads the files of [tls], once for all who listen; nil without that table. Its
// error names the file that can't be used.
func newServingTLS(cfg *conf.Config, log *slog.Logger) (*tls.Config, error) {
	if cfg.TLS == nil {
		return nil, nil
	}
	s := &servingTLS{conf: *cfg.TLS, log: log}
	if s.conf.Auto {
		s.auto = newSelfSigned(cfg, log)
		s.conf.Cert, s.conf.Key = s.auto.files()
	}
	if err := s.load(); err != nil {
		return nil, err
	}
	return &tls.Config{
		MinVersion: s.good.MinVersion, NextProtos: protocols,
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
	if s.auto != nil {
		var err error
		if files[s.conf.Cert], files[s.conf.Key], err = s.auto.pair(); err != nil {
			return err
		}
	}
	for _, name := range []string{s.conf.Cert, s.conf.Key, s.conf.ClientCA, s.conf.CRL} {
		if name == "" {
			continue
		}
		text, err := files[name], error(nil)
		if text == nil {
			if text, err = os.ReadFile(name); err != nil {
				return fmt.Errorf("[tls]: %w", err)
			}
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
	c := &tls.Config{
		MinVersion: tlsVersions[s.conf.MinVersion], MaxVersion: tlsVersions[s.conf.MaxVersion],
		Certificates: []tls.Certificate{pair}, NextProtos: protocols,
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
