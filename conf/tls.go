package conf

import (
	"crypto/tls"
	"fmt"
	"slices"
	"time"
)

// year is what etcd calls one.
const year = 365 * day

// ServerTLS is the table [tls]: how clients reach sharder over TLS, and operators where metrics
// says https. Without it nobody does.
type ServerTLS struct {
	// Cert (cert) and Key (key) are the files of sharder's certificate. They are read again
	// when they change.
	Cert, Key string
	// ClientCA (client_ca) is the file with the certificates that clients must prove theirs
	// by; empty lets clients in without one.
	ClientCA string
	// CRL (crl) is the file with the certificates that are revoked. It is read again when it
	// changes.
	CRL string
	// Auto (auto) has sharder make a certificate of its own, which nobody can check, instead
	// of Cert and Key; AutoValidity (auto_validity) is how long one is valid. Another one is
	// made before it ends.
	Auto         bool
	AutoValidity time.Duration
	// MinVersion (min_version) and MaxVersion (max_version) are "1.2" or "1.3". An empty
	// MaxVersion is the newest.
	MinVersion, MaxVersion string
	// CipherSuites (cipher_suites) are those that may be used with version 1.2, by the names
	// of crypto/tls; all that are secure by default.
	CipherSuites []string
}

// TLSVersions are the words for ServerTLS.MinVersion, the default first.
var TLSVersions = []string{"1.2", "1.3"}

func (s *schema) serverTLS(t *ServerTLS) fields {
	const file = `the path of a file`
	return fields{
		"cert":          {read: s.text(&t.Cert, file)},
		"key":           {read: s.text(&t.Key, file)},
		"client_ca":     {read: s.text(&t.ClientCA, file)},
		"crl":           {read: s.text(&t.CRL, file)},
		"auto":          {read: s.flag(&t.Auto)},
		"auto_validity": {read: s.duration(&t.AutoValidity, time.Minute, 100*year)},
		"min_version":   {read: s.oneOf(&t.MinVersion, TLSVersions)},
		"max_version":   {read: s.oneOf(&t.MaxVersion, TLSVersions)},
		"cipher_suites": {read: s.suites(&t.CipherSuites)},
	}
}

// readTLS reads [tls].
func (s *schema) readTLS(n *node) {
	t := &ServerTLS{MinVersion: TLSVersions[0], AutoValidity: year}
	s.c.TLS = t
	s.walk(n, s.serverTLS(t))
	s.checkCertificate(n, t)
	if crl := n.kid("crl"); crl != nil && n.kid("client_ca") == nil {
		s.wrong(crl, "clients need no certificate, so none can be revoked", `write client_ca = "ca.pem", or take it out`)
	}
	if suites := n.kid("cipher_suites"); suites != nil && t.MinVersion == "1.3" {
		s.wrong(suites, "version 1.3 has its own", `take it out, or write min_version = "1.2"`)
	}
	if t.MaxVersion != "" && t.MaxVersion < t.MinVersion {
		s.wrong(n.kid("max_version"), "no version is left", fmt.Sprintf("write max_version = %q, or take min_version out", t.MinVersion))
	}
}

// checkCertificate checks that there is one certificate: that of two files, or one of our own.
func (s *schema) checkCertificate(n *node, t *ServerTLS) {
	given := n.kid("cert") != nil || n.kid("key") != nil
	switch {
	case t.Auto && given:
		s.wrong(n.kid("auto"), "there is a certificate already", "take one of the two out")
	case t.Auto:
		return
	case !given:
		s.wrong(n, "there is no certificate", `write cert = "server.pem" and key = "server-key.pem", or auto = true for one that nobody can check, or take the table out`)
	default:
		s.together(n, "cert", "key")
	}
	if v := n.kid("auto_validity"); v != nil {
		s.wrong(v, "no certificate is made, so this has no meaning", "write auto = true, or take it out")
	}
}

// suites reads names of cipher suites.
func (s *schema) suites(to *[]string) func(*node) {
	return func(n *node) {
		all, ok := s.list(n, `["TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256"]`)
		for _, name := range all {
			if !slices.ContainsFunc(tls.CipherSuites(), func(c *tls.CipherSuite) bool { return c.Name == name }) {
				var names []string
				for _, c := range tls.CipherSuites() {
					names = append(names, c.Name)
				}
				s.wrong(n, fmt.Sprintf("%q is no cipher suite that is secure", name), choice(name, names, "suites"))
				ok = false
			}
		}
		if ok {
			*to = all
		}
	}
}
