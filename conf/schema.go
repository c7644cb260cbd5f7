package conf

import (
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"
)

// The bounds of what a file may say. The upper ones only keep slips of the finger
// from becoming memory.
const (
	many    = 1_000_000 // requests, calls, batches or entries
	streams = 10_000
	moment  = time.Millisecond
	probes  = 10 * time.Millisecond // the smallest pause between two questions to a shard
	day     = 24 * time.Hour

	maxRevision = 1 << 60   // leaves room for a write per nanosecond, for 200 years
	maxPeriod   = 365 * day // of history
)

// field is what the file may say under one key: a value that read takes, or a table
// of fields. With both, read takes the table and fields only tell which keys it has.
type field struct {
	read   func(n *node)
	fields fields
}

// fields are the keys of a table.
type fields map[string]field

// schema reads the nodes of a file into a Config and notes what doesn't fit.
type schema struct {
	*report
	c        *Config
	nodes    []*node // the table of each of c.Shards
	gates    []*node // the table of each of c.Gateways
	ordering *node   // the table of c.Order
	lines    []line  // what could be read of [routes]
	strays   bool    // something is wrong with the names in [routes], so nobody knows who is missing there
}

// top is the whole file.
func (s *schema) top() fields {
	c := s.c
	return fields{
		"listen":                {read: s.listeners(&c.Listen)},
		"metrics":               {read: s.operators(&c.Metrics)},
		"data_dir":              {read: s.text(&c.DataDir, `a directory, such as "data"`)},
		"drain_timeout":         {read: s.duration(&c.DrainTimeout, moment, day)},
		"max_request_bytes":     {read: s.size(&c.MaxRequestBytes, KiB, GiB)},
		"serializable_ordering": {read: s.flag(&c.SerializableOrdering)},
		"tls":                   {read: s.readTLS, fields: s.serverTLS(new(ServerTLS))},
		"http":                  {fields: s.http(&c.HTTP)},
		"grpc":                  {fields: s.grpc(&c.GRPC)},
		"limits":                {fields: s.limits(&c.Limits)},
		"watch":                 {fields: s.watch(&c.Watch)},
		"lease":                 {fields: fields{"keep_alive_streams": {read: s.count(&c.Lease.KeepAliveStreams, 1, streams)}}},
		"cache":                 {fields: s.cache(&c.Cache)},
		"order":                 {read: s.order, fields: s.orderFields(new(Order))},
		"shards":                {read: s.shards, fields: s.shard(new(Shard))},
		"gateways":              {read: s.gateways, fields: s.gateway(new(Gateway))},
		"routes":                {read: s.routes},
		"advertise":             {read: s.advertised},
		"members":               {read: s.oneOf(&c.Members, []string{MembersSharders, MembersShard})},
		"namespace":             {read: s.namespace},
		"registration":          {read: s.registration, fields: s.registrationFields(new(Registration))},
	}
}

func (s *schema) limits(l *Limits) fields {
	return fields{
		"requests":          {read: s.count(&l.Requests, 1, many)},
		"requests_waiting":  {read: s.count(&l.RequestsWaiting, 0, many)},
		"per_shard":         {read: s.count(&l.PerShard, 1, many)},
		"per_shard_waiting": {read: s.count(&l.PerShardWaiting, 0, many)},
		"stream_page":       {read: s.size(&l.StreamPage, 4*KiB, GiB)},
	}
}

func (s *schema) watch(w *Watch) fields {
	return fields{
		"queue":             {read: s.count(&w.Queue, 1, many)},
		"queue_bytes":       {read: s.size(&w.QueueBytes, 4*KiB, GiB)},
		"history_bytes":     {read: s.size(&w.HistoryBytes, 4*KiB, GiB)},
		"catch_ups":         {read: s.count(&w.CatchUps, 1, streams)},
		"progress_interval": {read: s.duration(&w.ProgressInterval, probes, day)},
	}
}

func (s *schema) shard(sh *Shard) fields {
	const file = `the path of a file`
	return s.upstream(&sh.Upstream, fields{
		"embedded":  {read: s.flag(&sh.Embedded)},
		"listen":    {read: s.address(&sh.Listen, "127.0.0.1:23790")},
		"endpoints": {read: s.endpoints(&sh.Endpoints, true)},
		"tls": {fields: fields{
			"ca":          {read: s.text(&sh.TLS.CA, file)},
			"cert":        {read: s.text(&sh.TLS.Cert, file)},
			"key":         {read: s.text(&sh.TLS.Key, file)},
			"server_name": {read: s.text(&sh.TLS.ServerName, `a name, such as "etcd.example.com"`)},

			"insecure_skip_verify": {read: s.flag(&sh.TLS.InsecureSkipVerify)},
		}},
		"username":        {read: s.text(&sh.Username, `a name, such as "sharder"`)},
		"password_file":   {read: s.text(&sh.PasswordFile, file)},
		"health_interval": {read: s.duration(&sh.HealthInterval, probes, day)},
		"timeout":         {read: s.duration(&sh.Timeout, moment, day)},
	})
}

// walk reads the table n, which may have the keys of f.
func (s *schema) walk(n *node, f fields) {
	for _, kid := range n.kids {
		known, ok := f[kid.name()]
		switch {
		case !ok:
			s.unknown(kid, f)
		case known.fields == nil:
			known.read(kid)
		case !kid.table:
			s.wrong(kid, fmt.Sprintf("want a table, have %s", describe(kid.value)), fmt.Sprintf("write it as [%s] with lines below", kid.key))
		case known.read != nil:
			known.read(kid)
		default:
			s.walk(kid, known.fields)
		}
	}
}

// unknown says that n's table, which has the keys of f, has no such key.
func (s *schema) unknown(n *node, f fields) {
	what := "no such key"
	if n.table {
		what = fmt.Sprintf("no table that this version knows is called %q", n.name())
	}
	names, kind := slices.Collect(maps.Keys(f)), "keys here"
	if n.table && len(n.key) == 1 && Nearest(n.name(), names) == "" {
		names, kind = []string{"tls", "http", "grpc", "limits", "watch", "lease", "cache", "registration", "order", "shards.NAME", "routes", "gateways.NAME"}, "tables"
	}
	if home := s.home(n); home != "" && Nearest(n.name(), names) == "" {
		s.wrong(n, what+" here", home)
		return
	}
	s.wrong(n, what, choice(n.name(), names, kind))
}

// home is the remedy for a key that stands in the wrong table, or empty.
func (s *schema) home(n *node) string {
	top, name := s.top(), n.name()
	if _, ok := top[name]; ok && len(n.key) > 1 {
		if top[name].fields != nil || name == "routes" {
			return fmt.Sprintf("write [%s] as a table of its own", name)
		}
		return "it belongs to the top of the file, above the first [table]"
	}
	if _, ok := top["shards"].fields[name]; ok { // before [order], which has the same keys
		return "it belongs to [shards.NAME]"
	}
	for _, table := range slices.Sorted(maps.Keys(top)) {
		if _, ok := top[table].fields[name]; ok {
			if table == "gateways" {
				table += ".NAME"
			}
			return fmt.Sprintf("it belongs to [%s]", table)
		}
	}
	return ""
}

// describe says what kind of thing the library has read, for an error.
func describe(value any) string {
	switch v := value.(type) {
	case nil, map[string]any:
		return "a table"
	case string:
		if len(v) > 80 {
			v = strings.ToValidUTF8(v[:80], "") + "…"
		}
		return fmt.Sprintf("the string %q", v)
	case bool, int64:
		return fmt.Sprint(v)
	case float64:
		return fmt.Sprintf("%g, with a point", v)
	case time.Time:
		return "a date"
	case []map[string]any:
		return "an array of tables, [[…]]"
	default:
		return "a list"
	}
}
