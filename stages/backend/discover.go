package backend

import (
	"cmp"
	"context"
	"crypto/tls"
	"errors"
	"time"

	"github.com/sharder/sharder/stages/discovery"
)

const (
	// lookupTimeout bounds one lookup.
	lookupTimeout = 10 * time.Second
	// outagePause is the time between two lookups while no member answers.
	outagePause = 2 * time.Second
)

// lookup finds the endpoints by DNS, and gives the time until the next lookup. One that
// fails takes nothing away.
func (k *keeper) lookup(ctx context.Context) time.Duration {
	c := k.cluster
	bounded, cancel := context.WithTimeout(ctx, lookupTimeout)
	defer cancel()
	found, err := discovery.Lookup{
		Domain: c.opts.DiscoverySRV, Name: c.opts.DiscoveryName, SecureOnly: !c.opts.InsecureDiscovery,
		Resolver: c.opts.Resolver, Logger: c.opts.Logger,
	}.Endpoints(bounded)
	if ctx.Err() != nil {
		return c.opts.DiscoveryInterval
	}
	eps := c.discovered(found)
	if err == nil && len(eps) == 0 {
		err = errors.New("what was found can't be used")
	}
	if err != nil {
		c.lost.Store(&err)
		c.opts.Logger.Warn("the endpoints could not be looked up; those that are known stay", "shard", c.opts.Name, "domain", c.opts.DiscoverySRV, "error", err)
	}
	if len(eps) > 0 && (err == nil || len(k.found) == 0) {
		k.found = eps
	}
	if len(k.found) == 0 {
		c.settleOnce.Do(func() { close(c.settled) }) // there is nobody to wait for
	}
	if !c.Healthy() {
		return min(c.opts.DiscoveryInterval, outagePause)
	}
	return c.opts.DiscoveryInterval
}

// discovered makes endpoints of what was found. Where TLS is configured nothing is spoken
// to in the clear, whatever the records say.
func (c *Cluster) discovered(found []discovery.Endpoint) []endpoint {
	var out []endpoint
	for _, f := range found {
		switch {
		case len(out) == maxEndpoints:
			c.opts.Logger.Warn("too many endpoints were found", "shard", c.opts.Name, "domain", c.opts.DiscoverySRV, "found", len(found), "used", maxEndpoints)
			return out
		case !f.Secure && c.opts.TLS != nil:
			c.opts.Logger.Warn("an endpoint was found that speaks no TLS, and TLS is configured; it is left out", "shard", c.opts.Name, "endpoint", f.Addr)
			continue
		}
		conf := c.opts.TLS
		if f.Secure && !c.opts.InsecureDiscovery {
			conf = provenFor(conf, c.opts.DiscoverySRV)
		}
		out = append(out, endpoint{addr: f.Addr, priority: f.Priority, weight: f.Weight}.spoken(conf, f.Secure))
	}
	return out
}

// provenFor has a connection come about only with a member whose certificate is for the
// domain. Without that, whoever can write a record could lead sharder anywhere.
func provenFor(conf *tls.Config, domain string) *tls.Config {
	if conf == nil {
		conf = &tls.Config{MinVersion: tls.VersionTLS12}
	}
	conf = conf.Clone()
	conf.ServerName = cmp.Or(conf.ServerName, domain)
	conf.VerifyConnection = func(s tls.ConnectionState) error {
		if len(s.PeerCertificates) == 0 {
			return errors.New("the member has no certificate")
		}
		return s.PeerCertificates[0].VerifyHostname(domain)
	}
	return conf
}
