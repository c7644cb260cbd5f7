package conf

import "time"

// Config is a whole configuration. Whoever got it from [Load] or [Parse] may rely
// on every bound and rule named below, and must not change it once it is shared.
type Config struct {
	// File is the path as it was given to Load; empty when the text came from memory.
	File string
	// Listen (listen) holds the addresses where etcd clients connect, as the file has them:
	// host:port, http://host:port, https://host:port, unix:///path or unixs:///path. At least
	// one; port 0 means any free port. Listeners says what they mean.
	Listen []string
	// Advertise (advertise) holds the addresses, host:port, perhaps with http:// or https://
	// before it, at which clients reach this sharder; see Advertised.
	Advertise []string
	// Members (members) says whom MemberList answers with: MembersSharders or, with one
	// shard, MembersShard.
	Members string
	// Namespace (namespace) is what the keys of clients begin with below, decoded; they see
	// their keys without it, and no others. nil is the whole keyspace. It doesn't begin with NUL.
	Namespace []byte
	// Registration is the table [registration].
	Registration Registration
	// Metrics (metrics) is the address of the HTTP side for operators, in the forms of Listen.
	// Empty is none. Operators says what it means.
	Metrics string
	// TLS is the table [tls]; nil if everybody comes in the clear.
	TLS *ServerTLS
	// DataDir (data_dir) is the directory where embedded shards and an embedded order
	// cluster keep their data, one directory for each in it. Empty unless the file sets it.
	DataDir string
	// DrainTimeout (drain_timeout) bounds how long requests in flight may go on
	// once sharder was asked to stop.
	DrainTimeout time.Duration
	// MaxRequestBytes (max_request_bytes) is the largest request a client may send.
	MaxRequestBytes Size
	// SerializableOrdering (serializable_ordering) keeps serializable reads from going back
	// when another member answers. With Order they never do.
	SerializableOrdering bool
	// HTTP is the table [http], GRPC the table [grpc].
	HTTP HTTP
	GRPC GRPC
	// Limits is the table [limits].
	Limits Limits
	// Watch is the table [watch].
	Watch Watch
	// Lease is the table [lease].
	Lease Lease
	// Cache is the table [cache]. It means something with one shard and no Order only.
	Cache Cache
	// Shards holds the tables [shards.NAME] in the order of the file. There is at
	// least one, unless there are only Gateways; without Order the first is the home of leases.
	Shards []Shard
	// Order is the table [order]; nil if there is none, and then each shard has
	// revisions of its own.
	Order *Order
	// Routes is the table [routes], sorted by key; the first key is always empty.
	Routes []Route
	// Gateways holds the tables [gateways.NAME] in the order of the file.
	Gateways []Gateway
}

// Limits bounds the work that is inside the process, and the work that waits to
// get in. What finds both full is refused at once, half-done never.
type Limits struct {
	// Requests (requests) and RequestsWaiting (requests_waiting) are the door:
	// requests being worked on, over all shards, and requests waiting to be.
	Requests, RequestsWaiting int
	// PerShard (per_shard) and PerShardWaiting (per_shard_waiting) are each
	// shard's lane: calls in flight to it, and calls waiting to be sent.
	PerShard, PerShardWaiting int
	// StreamPage (stream_page) is how much of one shard's RangeStream is held
	// while the other shards catch up.
	StreamPage Size
}

// Watch bounds what watches may hold, in the process and on the shards.
type Watch struct {
	// Queue (queue) is how many batches of events may wait for one client stream.
	Queue int
	// QueueBytes (queue_bytes) is how many bytes of events may wait for one client stream.
	QueueBytes Size
	// HistoryBytes (history_bytes) is how much of the newest events is kept per
	// shared upstream watcher, for clients that join late.
	HistoryBytes Size
	// CatchUps (catch_ups) is how many catch-up streams may be open at once per shard.
	CatchUps int
	// ProgressInterval (progress_interval) is how often sharder asks the shards
	// how far its upstream watches have come.
	ProgressInterval time.Duration
}

// Lease says how leases are kept alive.
type Lease struct {
	// KeepAliveStreams (keep_alive_streams) is the number of upstream keep-alive
	// streams per shard.
	KeepAliveStreams int
}

// Shard is one etcd cluster: either embedded in this process, or named by the
// addresses of its members. Never both.
type Shard struct {
	// Name is the NAME of [shards.NAME]: letters, digits, "_" and "-".
	Name string
	// Embedded (embedded) says that sharder runs this shard itself, as an etcd of one
	// member with its data below Config.DataDir.
	Embedded bool
	// Listen (listen) fixes the client address, host:port, of an embedded shard.
	// Empty means a free port of the loopback interface.
	Listen string
	// Endpoints (endpoints) are the members, each host:port, http://host:port,
	// https://host:port, or unix:// or unixs:// and the path of a socket; either all of them over
	// TLS or none. Either these or DiscoverySRV.
	Endpoints []string
	// Upstream says how the members are found otherwise, and how they are spoken to.
	Upstream
	// TLS (tls) holds the files for TLS towards the members.
	TLS TLS
	// Username (username) and PasswordFile (password_file) are the credentials
	// sharder itself uses; both or neither. The password is the file's first line. With one
	// shard and no order, whose clients authenticate themselves, they are for calls of
	// sharder's own only.
	Username, PasswordFile string
	// HealthInterval (health_interval) is how often each member is probed.
	HealthInterval time.Duration
	// Timeout (timeout) bounds one unary call to this shard when the client set
	// no deadline.
	Timeout time.Duration
}

// TLS names the files for TLS towards a shard's members. An https endpoint needs
// none of them: then the roots of the system decide and no certificate is shown.
type TLS struct {
	// CA (ca) is the file with the PEM certificates that members are checked against.
	CA string
	// Cert (cert) and Key (key) are the files with sharder's own certificate and its
	// key, PEM; both or neither.
	Cert, Key string
	// ServerName (server_name) is the name to expect in the members' certificates;
	// empty means the host of the endpoint.
	ServerName string
	// InsecureSkipVerify (insecure_skip_verify) takes any certificate of a member for good.
	InsecureSkipVerify bool
}

// Empty reports whether nothing of t is set.
func (t TLS) Empty() bool { return t == TLS{} }

// Route is one line of [routes]. A key belongs to the last line whose key is not
// above it. A line with hash holds only the keys that begin with Key; behind that prefix
// the line above it goes on.
type Route struct {
	// Key is where the range begins, decoded; empty for the start of the keyspace.
	Key []byte
	// Shards has the one shard of the range; with Hash two or more, all different,
	// over which the keys are spread.
	Shards []string
	// Hash says that keys are spread by their hash.
	Hash bool
	// Line is the line in the file, from 1; 0 for a route that is implied.
	Line int
}

// Default returns the configuration of an empty file: every default, no shards and
// no routes. The caller owns the result.
func Default() *Config {
	return &Config{
		Listen:          []string{"127.0.0.1:2379"},
		Members:         MembersSharders,
		Registration:    Registration{TTL: 15 * time.Second},
		DrainTimeout:    10 * time.Second,
		MaxRequestBytes: 1536 * KiB,
		HTTP:            HTTP{Gateway: true},
		GRPC:            defaultGRPC(),
		Limits: Limits{
			Requests: 2048, RequestsWaiting: 8192,
			PerShard: 512, PerShardWaiting: 4096,
			StreamPage: MiB,
		},
		Watch: Watch{
			Queue: 128, QueueBytes: 4 * MiB, HistoryBytes: 512 * KiB,
			CatchUps: 16, ProgressInterval: 5 * time.Second,
		},
		Lease: Lease{KeepAliveStreams: 4},
		Cache: Cache{Bytes: 64 * MiB, MaxAge: time.Second, AuthInterval: time.Second},
	}
}

// DefaultShard is a shard whose table is empty.
func DefaultShard(name string) Shard {
	return Shard{Name: name, HealthInterval: time.Second, Timeout: 30 * time.Second, Upstream: defaultUpstream()}
}
