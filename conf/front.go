package conf

import (
	"math"
	"time"
)

// HTTP is the table [http]: what the client port answers over HTTP.
type HTTP struct {
	// Gateway (gateway) says that the JSON form of the API is served, below /v3/.
	Gateway bool
	// PProf (pprof) says that Go's profiles are served, below /debug/pprof/.
	PProf bool
}

// GRPC is the table [grpc]: what clients may do with a connection.
type GRPC struct {
	// MaxConcurrentStreams (max_concurrent_streams) is how many requests and streams a client
	// may have open on a connection; what is more waits at the client.
	MaxConcurrentStreams int64
	// KeepAliveMinTime (keepalive_min_time) is the time between two pings of a client, at
	// least: one that pings more often is sent away. KeepAliveWithoutCalls
	// (keepalive_without_calls) lets clients ping that have nothing open.
	KeepAliveMinTime      time.Duration
	KeepAliveWithoutCalls bool
	// KeepAliveInterval (keepalive_interval) is how often a silent client is pinged, 0 is
	// never, and KeepAliveTimeout (keepalive_timeout) how long it has to answer.
	KeepAliveInterval, KeepAliveTimeout time.Duration
	// LogRequests (log_requests) has a line in the log for every request, without what it is about.
	LogRequests bool
}

// defaultGRPC is what etcd does by default.
func defaultGRPC() GRPC {
	return GRPC{
		MaxConcurrentStreams: math.MaxUint32,
		KeepAliveMinTime:     5 * time.Second, KeepAliveInterval: 2 * time.Hour, KeepAliveTimeout: 20 * time.Second,
	}
}

func (s *schema) http(h *HTTP) fields {
	return fields{
		"gateway": {read: s.flag(&h.Gateway)},
		"pprof":   {read: s.flag(&h.PProf)},
	}
}

func (s *schema) grpc(g *GRPC) fields {
	return fields{
		"max_concurrent_streams":  {read: s.number(&g.MaxConcurrentStreams, 1, math.MaxUint32)},
		"keepalive_min_time":      {read: s.duration(&g.KeepAliveMinTime, 0, day)},
		"keepalive_interval":      {read: s.duration(&g.KeepAliveInterval, 0, day)},
		"keepalive_timeout":       {read: s.duration(&g.KeepAliveTimeout, moment, day)},
		"keepalive_without_calls": {read: s.flag(&g.KeepAliveWithoutCalls)},
		"log_requests":            {read: s.flag(&g.LogRequests)},
	}
}
