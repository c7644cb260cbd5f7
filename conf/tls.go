package conf

import (
	"crypto/tls"
	"fmt"
	"slices"
)

// ServerTLS is the table [tls]: how clients reach sharder. Without it they do so in the clear.
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
	// MinVersion (min_version) is "1.2" or "1.3".
	MinVersion string
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
		"min_version":   {read: s.oneOf(&t.MinVersion, TLSVersions)},
		"cipher_suites": {read: s.suites(&t.CipherSuites)},
	}
}

// readTLS reads [tls].
func (s *schema) readTLS(n *node) {
	s.c.TLS = &ServerTLS{MinVersion: TLSVersions[0]}
	s.walk(n, s.serverTLS(s.c.TLS))
	switch {
	case n.kid("cert") == nil && n.kid("key") == nil:
		s.wrong(n, "there is no certificate", `write cert = "server.pem" and key = "server-key.pem", or take the table out`)
	default:
		s.together(n, "cert", "key")
	}
	if crl := n.kid("crl"); crl != nil && n.kid("client_ca") == nil {
		s.wrong(crl, "clients need no certificate, so none can be revoked", `write client_ca = "ca.pem", or take it out`)
	}
	if suites := n.kid("cipher_suites"); suites != nil && s.c.TLS.MinVersion == "1.3" {
		s.wrong(suites, "version 1.3 has its own", `take it out, or write min_version = "1.2"`)
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
