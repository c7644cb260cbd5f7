package gateway

import (
	"context"
	"log/slog"
	"time"

	"github.com/sharder/sharder/stages/discovery"
)

// Strategy says which of the endpoints of one priority gets a connection.
type Strategy string

// The strategies. All of them heed weights.
const (
	RoundRobin       Strategy = "round-robin"       // in turn; the default
	Random           Strategy = "random"            // by chance, as RFC 2782 has it
	LeastConnections Strategy = "least-connections" // the one with the fewest open
)

// Strategies are all there are.
var Strategies = []Strategy{RoundRobin, Random, LeastConnections}

// Options say how a Gateway works. Zero values are replaced by the defaults named.
type Options struct {
	// Endpoints gives the endpoints; it is called at the start and then every Refresh. After
	// an error the last ones stay; only if there are none, those that come with it are
	// used. Fixed makes one that never changes.
	Endpoints func(ctx context.Context) ([]discovery.Endpoint, error)
	Refresh   time.Duration // 30s
	Strategy  Strategy      // RoundRobin

	Connections   int           // open at once; more wait to be accepted. 10000
	DialTimeout   time.Duration // to one endpoint. 3s
	ProbeInterval time.Duration // between two probes of an endpoint. 1s
	DrainTimeout  time.Duration // open connections have this long once the gateway is to stop. 10s
	KeepAlive     time.Duration // TCP keep-alive on both sides: a peer that is gone is noticed. 15s

	Logger *slog.Logger // slog.Default()
}

func (o Options) withDefaults() Options {
	duration := func(d *time.Duration, def time.Duration) {
		if *d <= 0 {
			*d = def
		}
	}
	duration(&o.Refresh, 30*time.Second)
	duration(&o.DialTimeout, 3*time.Second)
	duration(&o.ProbeInterval, time.Second)
	duration(&o.DrainTimeout, 10*time.Second)
	duration(&o.KeepAlive, 15*time.Second)
	if o.Connections <= 0 {
		o.Connections = 10_000
	}
	if o.Strategy == "" {
		o.Strategy = RoundRobin
	}
	if o.Logger == nil {
		o.Logger = slog.Default()
	}
	return o
}

// Fixed gives endpoints that never change, all of the same priority and weight.
func Fixed(addrs ...string) func(context.Context) ([]discovery.Endpoint, error) {
	all := make([]discovery.Endpoint, 0, len(addrs))
	for _, a := range addrs {
		all = append(all, discovery.Endpoint{Addr: a})
	}
	return func(context.Context) ([]discovery.Endpoint, error) { return all, nil }
}
