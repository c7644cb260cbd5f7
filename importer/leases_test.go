package importer_test

import (
	"fmt"
	"testing"
	"time"

	"github.com/sharder/sharder/importer"
	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	clientv3 "go.etcd.io/etcd/client/v3"
)

// ttl asks the target about a lease.
func (r *rig) ttl(id clientv3.LeaseID) *clientv3.LeaseTimeToLiveResponse {
	r.t.Helper()
	resp, err := r.target.TimeToLive(r.t.Context(), id, clientv3.WithAttachedKeys())
	if err != nil {
		r.t.Fatal(err)
	}
	return resp
}

func TestLeasesComeWithIDKeysAndWholeTTL(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	r.fill(100)
	r.lease(0x11, 600, "a", "b", "c")
	r.lease(0x12, 1200, "d")
	r.lease(0x13, 600)
	report := r.done()
	r.same()
	if report.Leases != 2 || report.LeasedKeys != 4 || report.EmptyLeases != 1 || report.EndedLeases != 0 {
		t.Fatalf("%+v", report)
	}
	for id, want := range map[clientv3.LeaseID]string{0x11: "600 3", 0x12: "1200 1", 0x13: "0 0"} {
		got := r.ttl(id)
		if s := fmt.Sprint(got.GrantedTTL, len(got.Keys)); s != want {
			t.Errorf("lease %x: TTL and keys %s, want %s", int64(id), s, want)
		}
		if id != 0x13 && got.TTL < got.GrantedTTL-60 {
			t.Errorf("lease %x has %d s left", int64(id), got.TTL)
		}
	}
}

// The import reads what was, and the lease ends before its keys' turn comes.
func TestKeysWhoseLeaseHasEndedAreNotBrought(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	r.fill(20)
	r.lease(0x11, 600, "ends/a", "ends/b")
	r.lease(0x12, 600, "lives")
	ended := false
	report := r.done(func(o *importer.Options) {
		o.Target.KV = tapped{KVClient: o.Target.KV, before: func(*pb.TxnRequest) error {
			if !ended {
				ended = true
				if _, err := r.source.Revoke(t.Context(), 0x11); err != nil {
					t.Error(err)
				}
			}
			return nil
		}}
		o.Workers = 1
	})
	r.same() // the source's keys went with the lease
	if report.EndedLeases != 1 || report.EndedKeys != 2 || report.Leases != 1 || report.Keys != 21 {
		t.Fatalf("%+v", report)
	}
}

func TestLeasesAreKeptAliveWhileAnImportRuns(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	r.lease(0x11, 8, "short")
	keep, err := r.source.KeepAlive(t.Context(), 0x11)
	if err != nil {
		t.Fatal(err)
	}
	go func() {
		for range keep {
		}
	}()
	r.fill(10)
	// A lease comes first in the keys' order; the last key waits for longer than it lives.
	r.lease(0x12, 600, "\x7fslow")
	report := r.done(func(o *importer.Options) {
		o.Target.KV = tapped{KVClient: o.Target.KV, after: func(in *pb.TxnRequest) error {
			if string(in.Compare[0].Key) == "short" {
				time.Sleep(12 * time.Second)
			}
			return nil
		}}
	})
	r.same()
	if report.Leases != 2 {
		t.Fatalf("%+v", report)
	}
}

// An import that stopped renews nothing: what it had brought ends, and is brought again.
func TestLeasesThatEndedInTheTargetAreGrantedAgain(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	r.fill(10)
	r.lease(0x11, 600, "leased/a", "leased/b")
	r.done()
	if _, err := r.target.Revoke(t.Context(), 0x11); err != nil {
		t.Fatal(err)
	}
	report, err := r.run(verifyOnly)
	if err == nil || report.Differences != 3 { // two keys and the lease itself
		t.Fatalf("%+v, %v", report, err)
	}
	r.done()
	r.same()
}

func TestALeaseThatEndsBeforeItsKeyArrivesIsGrantedAgain(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	r.lease(0x11, 600, "leased")
	revoked := false
	r.done(func(o *importer.Options) {
		o.Target.KV = tapped{KVClient: o.Target.KV, before: func(*pb.TxnRequest) error {
			if !revoked {
				revoked = true
				if _, err := r.target.Revoke(t.Context(), 0x11); err != nil {
					t.Error(err)
				}
			}
			return nil
		}}
	})
	r.same()
}

func TestALeaseOfTheTargetsOwnIsNotTaken(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	r.lease(0x11, 600, "leased")
	if _, err := r.options.Target.Lease.LeaseGrant(t.Context(), &pb.LeaseGrantRequest{ID: 0x11, TTL: 60}); err != nil {
		t.Fatal(err)
	}
	if _, err := r.run(); err == nil {
		t.Fatal("a lease with another TTL was taken over")
	}
}
