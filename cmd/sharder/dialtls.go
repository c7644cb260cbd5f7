package main

import (
	"crypto/tls"
	"errors"
	"flag"

	"github.com/sharder/sharder/stages/backend"
)

// dialTLS are the flags of TLS towards a running sharder, for what asks one.
type dialTLS struct {
	ca, cert, key string
	skipVerify    bool
}

func (d *dialTLS) flags(flags *flag.FlagSet) {
	flags.StringVar(&d.ca, "cacert", "", "check sharder's certificate with those in this `file`")
	flags.StringVar(&d.cert, "cert", "", "our certificate, a `file`")
	flags.StringVar(&d.key, "key", "", "its key, a `file`")
	flags.BoolVar(&d.skipVerify, "insecure-skip-tls-verify", false, "don't check sharder's certificate (for tests)")
}

// check finds what the flags can't mean together.
func (d *dialTLS) check() error {
	if (d.cert == "") != (d.key == "") {
		return errors.New("--cert and --key go together")
	}
	return nil
}

// given tells whether one of the flags says something of TLS.
func (d *dialTLS) given() bool { return d.ca != "" || d.cert != "" || d.skipVerify }

// config reads the files.
func (d *dialTLS) config() (*tls.Config, error) {
	c, err := backend.TLSConfig(d.ca, d.cert, d.key, "")
	if err != nil {
		return nil, err
	}
	c.InsecureSkipVerify = d.skipVerify
	return c, nil
}
