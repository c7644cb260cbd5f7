package importer_test

import (
	"context"
	"errors"
	"math/rand/v2"
	"strings"
	"testing"
	"time"

	"github.com/sharder/sharder/importer"
	"github.com/sharder/sharder/integration/etcdtest"
	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	"go.etcd.io/etcd/server/v3/embed"
)

func TestAnImportGivesExactlyTheSource(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	r.fill(10_000)
	r.lease(0x77, 600, "leased/a", "leased/b")
	revision := r.revision(r.source)
	report := r.done()
	r.same()
	if report.Keys != 10_002 || report.Puts != 10_002 || report.Revision != revision || report.Rounds != 1 || report.Resumed {
		t.Fatalf("%+v", report)
	}
	if n := r.revision(r.source); n != revision {
		t.Fatalf("the source went from %d to %d", revision, n)
	}
}

func TestAnImportThatIsStoppedGoesOn(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	r.fill(2500)
	r.lease(0x77, 600, "leased/a", "leased/b")
	stops := 0
	for range 100 {
		ctx, cancel := context.WithCancel(t.Context())
		left := 1 + rand.N(800)
		report, err := r.runCtx(ctx, func(o *importer.Options) {
			o.Workers = 16
			o.Target.KV = tapped{KVClient: o.Target.KV, before: func(*pb.TxnRequest) error {
				return nil
			}, after: stopAt(left, cancel)}
		})
		cancel()
		if err == nil {
			if stops == 0 || !report.Resumed || report.Puts != 2502 {
				t.Fatalf("%d stops, %+v", stops, report)
			}
			r.same()
			return
		}
		if stops++; !errors.Is(err, context.Canceled) {
			t.Fatal(err)
		}
	}
	t.Fatal("it never came to its end")
}

func TestAnImportThatIsKilledGoesOn(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	r.fill(2500)
	r.lease(0x77, 600, "leased/a", "leased/b")
	for _, n := range []int64{1, 600, 1300, 103, 2} {
		if _, err := r.run(killedAfter(n)); err == nil {
			t.Fatalf("an import that was killed after %d writes came to its end", n)
		}
	}
	r.done()
	r.same()
}

func TestASourceThatCompactsIsComparedAtANewerRevision(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	r.fill(1500)
	r.lease(0x77, 600, "leased/a")
	for i, kill := range []int64{700, 300, 100} {
		if _, err := r.run(killedAfter(kill)); err == nil {
			t.Fatal("not killed")
		}
		r.put(r.source, key(10*i), "changed")
		r.put(r.source, "\x01new"+key(i), "new")
		r.del(r.source, key(20+i))
		r.del(r.source, key(1400+i))
		r.compact()
	}
	if report := r.done(); report.Rounds < 2 {
		t.Fatalf("%+v", report)
	}
	r.same()
}

func TestASourceThatCompactsDuringARunIsReadAtANewerRevision(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	r.fill(1500)
	seen := 0
	report := r.done(func(o *importer.Options) {
		o.Workers = 1
		o.Target.KV = tapped{KVClient: o.Target.KV, after: func(*pb.TxnRequest) error {
			if seen++; seen == 50 {
				r.del(r.source, key(0))
				r.put(r.source, key(1499), "changed")
				r.compact()
			}
			return nil
		}}
	})
	if report.Rounds != 2 {
		t.Fatalf("%+v", report)
	}
	r.same()
}

func TestATargetThatCompactsIsComparedAtANewerRevision(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	r.fill(500)
	compactions, compacted := 0, int64(0)
	report := r.done(func(o *importer.Options) {
		o.Target.KV = tapped{KVClient: o.Target.KV, read: func(in *pb.RangeRequest) {
			// Only the comparison reads the target at a revision; let it get to the second page.
			if in.Revision == 0 || string(in.Key) == "\x01" || compactions == 2 {
				return
			}
			compactions++
			compacted = r.put(r.target, "\x00elsewhere", "")
			if _, err := r.target.Compact(t.Context(), compacted); err != nil {
				t.Error(err)
			}
		}}
	})
	if compactions != 2 || report.VerifiedAt < compacted {
		t.Fatalf("%d compactions, %+v", compactions, report)
	}
	r.same()
}

func TestAnotherRunBringsWhatChangedSince(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	r.fill(500)
	first := r.done()
	r.put(r.source, key(1), "changed")
	r.put(r.source, "z", "new")
	r.del(r.source, key(2))
	report := r.done()
	r.same()
	if report.Puts != first.Puts+2 || report.Deletes != 1 || report.Rounds != 2 {
		t.Fatalf("%+v", report)
	}
}

func TestWhatOthersWroteIsNotOverwritten(t *testing.T) {
	t.Parallel()
	for name, others := range map[string]func(r *rig){
		"another value": func(r *rig) { r.put(r.target, key(5), "theirs") },
		"another key":   func(r *rig) { r.put(r.target, "theirs", "") },
		"another lease": func(r *rig) {
			r.lease(0x9, 600, "leased")
			r.put(r.target, "leased", "leased leased")
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			r := newRig(t)
			r.fill(50)
			others(r)
			revision := r.revision(r.target)
			_, err := r.run()
			var conflict *importer.ConflictError
			if !errors.As(err, &conflict) || conflict.Count != 1 || r.revision(r.target) != revision {
				t.Fatalf("%v; revision %d, was %d", err, r.revision(r.target), revision)
			}
			r.done(overwrite)
			r.same()
		})
	}
}

func TestWhatOthersWroteAfterAnImportIsNotOverwritten(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	r.fill(50)
	r.done()
	r.put(r.target, key(1), "theirs")
	r.del(r.target, key(2))
	r.put(r.target, "theirs", "")
	r.put(r.source, key(1), "changed")
	r.put(r.source, key(4), "changed")
	revision := r.revision(r.target)
	_, err := r.run()
	var conflict *importer.ConflictError
	if !errors.As(err, &conflict) || conflict.Count != 3 || r.revision(r.target) != revision {
		t.Fatalf("%v; revision %d, was %d", err, r.revision(r.target), revision)
	}
	r.done(overwrite)
	r.same()
}

func TestWhatOthersWriteMeanwhileIsNotOverwritten(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	r.fill(50)
	_, err := r.run(func(o *importer.Options) {
		o.Target.KV = tapped{KVClient: o.Target.KV, before: func(in *pb.TxnRequest) error {
			if string(in.Compare[0].Key) == key(7) {
				r.put(r.target, key(7), "theirs")
			}
			return nil
		}}
	})
	var conflict *importer.ConflictError
	if !errors.As(err, &conflict) || conflict.Count != 1 || string(conflict.First) != key(7) || !conflict.Written {
		t.Fatal(err)
	}
	if _, err := r.run(); !errors.As(err, &conflict) || conflict.Count != 1 {
		t.Fatalf("run again: %v", err)
	}
	if got, _ := r.target.Get(t.Context(), key(7)); string(got.Kvs[0].Value) != "theirs" {
		t.Fatalf("%v", got.Kvs)
	}
}

func TestReservedKeysAreRefused(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	r.fill(10)
	r.put(r.source, "\x00b", "")
	r.put(r.source, "\x00a", "")
	revision := r.revision(r.target)
	_, err := r.run()
	var reserved *importer.ReservedError
	if !errors.As(err, &reserved) || reserved.Count != 2 || string(reserved.First) != "\x00a" || r.revision(r.target) != revision {
		t.Fatal(err)
	}
	r.done(func(o *importer.Options) { o.Prefix = []byte("/registry/") })
}

func TestAPrefixIsAllThatIsTouched(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	r.fill(50)
	r.put(r.target, "/theirs", "")
	r.put(r.target, "/registry0", "")
	report := r.done(func(o *importer.Options) { o.Prefix = []byte("/registry/") })
	if n := len(r.all(r.target)); report.Keys == 0 || int64(n) != report.Keys+2 {
		t.Fatalf("%d keys, %+v", n, report)
	}
}

func TestAnotherSourceIsRefused(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	r.fill(10)
	r.done()
	other := etcdtest.Start(t, func(c *embed.Config) { c.InitialClusterToken = "other" })
	change := func(o *importer.Options) { o.Source = side(etcdtest.Conn(t, other.Endpoint)) }
	if _, err := r.run(change); err == nil || !strings.Contains(err.Error(), "another source") || !strings.Contains(err.Error(), "--restart") {
		t.Fatal(err)
	}
	var conflict *importer.ConflictError
	if _, err := r.run(change, restart); !errors.As(err, &conflict) || conflict.Count != 10 {
		t.Fatal(err)
	}
	r.source = other.Client()
	r.done(change, restart, overwrite)
	r.same()
}

// Etcds that were set up alike have the same cluster id.
func TestAnotherSourceWithTheSameIDIsRefusedWhileAnImportIsUnderWay(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	r.fill(200)
	if _, err := r.run(killedAfter(50)); err == nil {
		t.Fatal("not killed")
	}
	twin := newRig(t)
	twin.fill(300)
	_, err := r.run(func(o *importer.Options) { o.Source = twin.options.Source })
	if err == nil || !strings.Contains(err.Error(), "another source") {
		t.Fatal(err)
	}
	r.done()
	r.same()
}

func TestOfTwoImportsTheOlderOneStops(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	r.fill(1500)
	seen := 0
	_, err := r.run(func(o *importer.Options) {
		o.Workers = 1
		o.Target.KV = tapped{KVClient: o.Target.KV, after: func(*pb.TxnRequest) error {
			if seen++; seen == 10 {
				r.done()
			}
			return nil
		}}
	})
	if err == nil || !strings.Contains(err.Error(), "another import") {
		t.Fatal(err)
	}
	r.same()
}

func TestADryRunWritesNothing(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	r.fill(300)
	r.lease(0x7, 600, "leased")
	r.put(r.target, key(1), value(1))
	before := r.revision(r.target)
	report, err := r.run(dryRun)
	if err != nil || r.revision(r.target) != before {
		t.Fatalf("revision %d, was %d; %v", r.revision(r.target), before, err)
	}
	if p := report.Plan; p.Puts+p.Same != 301 || p.Conflicts != 0 || p.Deletes != 0 || p.Leases != 1 {
		t.Fatalf("%+v", p)
	}
	r.put(r.target, "theirs", "")
	before = r.revision(r.target)
	report, err = r.run(dryRun)
	var conflict *importer.ConflictError
	if !errors.As(err, &conflict) || report.Plan.Conflicts != 1 || r.revision(r.target) != before {
		t.Fatalf("%+v, %v", report.Plan, err)
	}
}

func TestVerificationSeesWhatDiffers(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	r.fill(100)
	r.lease(0x7, 600, "leased")
	r.done()
	report, err := r.run(verifyOnly)
	if err != nil || !report.Verified || report.Keys != 101 || report.Leases != 1 {
		t.Fatalf("%+v, %v", report, err)
	}
	r.put(r.target, key(1), value(1)+" ")
	r.put(r.target, "leased", "leased leased")
	r.put(r.target, "zz", "")
	r.del(r.target, key(2))
	before := r.revision(r.target)
	report, err = r.run(verifyOnly)
	if !errors.Is(err, importer.ErrDifferent) || report.Differences != 4 || len(report.Listed) != 4 || r.revision(r.target) != before {
		t.Fatalf("%+v, %v", report, err)
	}
	for i := range 20 {
		r.put(r.target, key(i), "tampered")
	}
	if report, _ = r.run(verifyOnly); len(report.Listed) != 10 || report.Differences < 20 {
		t.Fatalf("%+v", report)
	}
}

// A key that is tampered with right before the comparison is what a copy that went wrong
// would look like.
func TestAnImportThatWentWrongFails(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	r.fill(100)
	report, err := r.run(func(o *importer.Options) {
		o.Target.KV = tapped{KVClient: o.Target.KV, after: func(in *pb.TxnRequest) error {
			if string(in.Compare[0].Key) == key(7) {
				r.put(r.target, key(7), "tampered")
			}
			return nil
		}}
	})
	if !errors.Is(err, importer.ErrDifferent) || report.Differences != 1 || string(report.Listed[0].Key) != key(7) {
		t.Fatalf("%+v, %v", report, err)
	}
	var conflict *importer.ConflictError
	if _, err := r.run(); !errors.As(err, &conflict) || string(conflict.First) != key(7) {
		t.Fatalf("run again: %v", err)
	}
}

func TestASourceThatWentBackIsRefused(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	r.fill(10)
	r.put(r.source, "later", "")
	r.done()
	// The record is what a source with a longer history would have left.
	got, err := r.target.Get(t.Context(), importer.RecordKey)
	if err != nil {
		t.Fatal(err)
	}
	text := string(got.Kvs[0].Value)
	r.put(r.target, importer.RecordKey, strings.Replace(text, `"revision":`, `"revision":9`, 1))
	if _, err := r.run(); err == nil || !strings.Contains(err.Error(), "--restart") {
		t.Fatal(err)
	}
	r.put(r.target, importer.RecordKey, strings.Replace(text, `"version":1`, `"version":2`, 1))
	if _, err := r.run(); err == nil || !strings.Contains(err.Error(), "version 2") {
		t.Fatal(err)
	}
	r.done(restart)
}

func TestATargetThatIsAwayIsWaitedFor(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	r.fill(500)
	seen := 0
	r.done(func(o *importer.Options) {
		o.Workers, o.Patience = 1, time.Minute
		o.Target.KV = tapped{KVClient: o.Target.KV, before: func(*pb.TxnRequest) error {
			if seen++; seen == 100 {
				r.to.Restart()
			}
			return nil
		}}
	})
	r.same()
}

// stopAt calls stop when the n-th answer has come.
func stopAt(n int, stop func()) func(*pb.TxnRequest) error {
	left := make(chan struct{}, n)
	for range n {
		left <- struct{}{}
	}
	return func(*pb.TxnRequest) error {
		select {
		case <-left:
		default:
			stop()
		}
		return nil
	}
}
