package lease

import (
	"context"
	"log/slog"
	"math/rand/v2"
	"time"

	"github.com/sharder/sharder/pipeline"
	"github.com/sharder/sharder/stages"
	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	"go.etcd.io/etcd/api/v3/mvccpb"
)

// Service is what chains need to serve leases; Manager and Relay are the two.
//
// Recover is called once, before anything else, and returns; Run is then run and
// waited for by its owner, for as long as there are requests. The rest may be
// called from any goroutine, with any error meant for stages.ErrorStatus. When Run
// ends, KeepAlive streams that are still open end with Unavailable.
type Service interface {
	Recover(ctx context.Context) error
	Run(ctx context.Context) error

	Grant(ctx context.Context, r *pb.LeaseGrantRequest) (*pb.LeaseGrantResponse, error)
	Revoke(ctx context.Context, r *pb.LeaseRevokeRequest) (*pb.LeaseRevokeResponse, error)
	TimeToLive(ctx context.Context, r *pb.LeaseTimeToLiveRequest) (*pb.LeaseTimeToLiveResponse, error)
	Leases(ctx context.Context, r *pb.LeaseLeasesRequest) (*pb.LeaseLeasesResponse, error)
	KeepAlive(stream pb.Lease_LeaseKeepAliveServer) error

	Attach() pipeline.Middleware[stages.Call, stages.Reply]
	TranslateKV(ctx context.Context, kvs []*mvccpb.KeyValue) ([]*mvccpb.KeyValue, error)
	TranslateEvents(ctx context.Context, events []*mvccpb.Event) []*mvccpb.Event
}

var (
	_ Service = (*Manager)(nil)
	_ Service = (*Relay)(nil)
)

// Options says which shards there are and sets the bounds. Zero means the default.
type Options struct {
	Home   *stages.Shard   // holds the records and the clock: one of Shards, or a cluster without clients' keys
	Shards []*stages.Shard // those that may hold clients' keys

	// Deleted is called, if set, whenever leased keys may have gone from a shard by the
	// given revision of it, before any client is told so, and before the records go. It
	// returns when every read that begins later sees that (order.Order.Cover). After an
	// error it is called again, with this revision or a later one, and until it has
	// succeeded nobody says that the lease does not exist. Any number of calls may be
	// under way at once.
	Deleted func(ctx context.Context, shard *stages.Shard, revision int64) error
	// End, if set, has a lease end on its shards, by its id there, instead of a LeaseRevoke
	// on each followed by Deleted: it returns when its keys are gone at one moment for every read
	// that begins later. It may be called again, and for a lease that has ended before. With
	// others the lease may wait for leases of other calls, to end in one go with them.
	End func(ctx context.Context, shards []*stages.Shard, id int64, withOthers bool) error
	// Settled returns, if set, when shards have all that was answered to clients before the call.
	Settled func(ctx context.Context, shards []*stages.Shard) error
	// Header gives, if set, the header of every answer instead of home's, and is asked
	// when the work is done. A fresh one is not older than anything acknowledged
	// anywhere before the call; otherwise what is at hand does, and asking must cost
	// nothing, since every keep-alive does it.
	Header func(ctx context.Context, fresh bool) (*pb.ResponseHeader, error)
	// Draw draws an id for a lease of which the client leaves the choice to the server:
	// positive, and out of so many that none comes again while anybody may still mean the
	// old one. nil: a Manager draws from 1 to 1<<62, a Relay leaves it to etcd.
	Draw func() int64

	KeepAliveStreams int           // upstream keep-alive streams, per identity; 4
	MaxRenewals      int           // leases being renewed at once, per shard; 65536
	Workers          int           // expired leases finished at once; 32, with End 128: they share batches
	MaxDebts         int           // expired leases remembered; more are found again at home; 262144
	CacheSize        int           // leases and aliases remembered; 65536 each
	Timeout          time.Duration // one call of our own to a shard; 5s
	Patience         time.Duration // a keep-alive, or a client waiting for others' leases to be finished; 5s
	SweepEvery       time.Duration // between two sweeps; 3m
	AliasRetention   time.Duration // an alias outlives its lease by at least this; 1h
	Logger           *slog.Logger  // slog.Default()
}

func (o Options) withDefaults() Options {
	number := func(n *int, d int) {
		if *n <= 0 {
			*n = d
		}
	}
	duration := func(n *time.Duration, d time.Duration) {
		if *n <= 0 {
			*n = d
		}
	}
	number(&o.KeepAliveStreams, 4)
	number(&o.MaxRenewals, 1<<16)
	if o.End != nil {
		number(&o.Workers, 128)
	}
	number(&o.Workers, 32)
	number(&o.MaxDebts, 1<<18)
	number(&o.CacheSize, 1<<16)
	duration(&o.Timeout, 5*time.Second)
	duration(&o.Patience, 5*time.Second)
	duration(&o.SweepEvery, 3*time.Minute)
	duration(&o.AliasRetention, time.Hour)
	if o.Logger == nil {
		o.Logger = slog.Default()
	}
	return o
}

// draw is Draw, or the choice of a Manager.
func (o Options) draw() int64 {
	if o.Draw != nil {
		return o.Draw()
	}
	return drawID()
}

// Manager serves leases over several shards; the package's documentation has the
// protocol. Any number of Managers, in any number of processes, may stand in front
// of the same shards as long as they name the same home.
type Manager struct {
	o      Options
	home   home
	known  *known
	debts  *debts
	native *natives
	places places
	grants *flights // attaches under way
	dead   deadAliases

	sessions sessions

	nonce    uint64 // makes this Manager's delays differ from others'
	followed int64  // what Run has to follow from, set by Recover; 0: scan first
}

// New makes a Manager. It starts nothing: see Service for what is called when.
func New(o Options) *Manager {
	o = o.withDefaults()
	m := &Manager{
		o:      o,
		home:   home{shard: o.Home, kv: pb.NewKVClient(o.Home.Conn), lease: pb.NewLeaseClient(o.Home.Conn), timeout: o.Timeout},
		known:  newKnown(o.CacheSize),
		debts:  newDebts(o.MaxDebts),
		native: newNatives(o.Shards),
		grants: newFlights(),
		nonce:  rand.Uint64(),
	}
	m.places = newPlaces(o, m.debts.hurry)
	m.sessions.init()
	return m
}

// isHome tells whether home's own etcd lease looks after keys on this shard.
func (m *Manager) isHome(s *stages.Shard) bool { return s == m.o.Home }

func leaseClient(s *stages.Shard) pb.LeaseClient { return pb.NewLeaseClient(s.Conn) }
