package importer

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"strconv"
	"time"

	"github.com/sourcegraph/conc"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
)

// Mode is what is asked of Run.
type Mode int

// The modes.
const (
	Import     Mode = iota // bring what is missing, and verify
	DryRun                 // say what Import would do; nothing is written anywhere
	VerifyOnly             // compare; nothing is written anywhere
)

// Etcd is one side of an import.
type Etcd struct {
	KV    pb.KVClient
	Lease pb.LeaseClient
}

// Options say what to import. Zero values of numbers and durations are replaced by the
// defaults named with them.
type Options struct {
	Mode Mode
	// Source is the etcd whose keys are brought; Target is the deployment that gets them.
	Source, Target Etcd
	// Records is the order cluster, where the record is kept.
	Records pb.KVClient
	// Prefix limits the import, on both sides, to the keys that begin with it.
	Prefix []byte
	// Overwrite makes the target what the source is, whoever wrote what is there: keys
	// that differ are overwritten, keys that the source doesn't have are deleted.
	Overwrite bool
	// Restart forgets how far an earlier import has come.
	Restart bool

	Workers  int           // writes under way at once; 128
	Patience time.Duration // how long a cluster that does not answer is waited for; 1m
	Call     time.Duration // bounds one call; 30s
	Progress *Progress     // told how far it is; may be nil
}

func (o Options) withDefaults() Options {
	if o.Workers <= 0 {
		o.Workers = 128
	}
	if o.Patience <= 0 {
		o.Patience = time.Minute
	}
	if o.Call <= 0 {
		o.Call = 30 * time.Second
	}
	return o
}

// run is one call of Run.
type run struct {
	Options
	span
	retry   retry
	records *records
	rec     *record
	leases  *leases
	writer  *writer
	report  *Report
	judge   judge // of this round
	survey  bool  // the round is to be surveyed before it writes
}

// Run does what the mode says. The report is never nil; after an error it has what is
// known by then. After any error, and after ctx has ended, an import may be run again and goes on
// where it was. When Run returns nothing of it is under way any more.
func Run(ctx context.Context, o Options) (*Report, error) {
	o = o.withDefaults()
	r := &run{Options: o, span: prefixed(o.Prefix), retry: retry{patience: o.Patience, call: o.Call}, report: &Report{Mode: o.Mode}}
	r.records = newRecords(o.Records, r.retry)
	r.leases = newLeases(o, r.retry)
	r.writer = &writer{kv: o.Target.KV, retry: r.retry, workers: o.Workers, leases: r.leases, each: func(w write) {
		if !w.gone {
			o.Progress.add(1, w.bytes())
		}
	}}
	keeping, stop := context.WithCancel(ctx)
	var wg conc.WaitGroup
	defer wg.Wait()
	defer stop()
	wg.Go(func() { r.leases.keep(keeping) })

	err := r.begin(ctx)
	if err == nil {
		err = r.rounds(ctx)
	}
	if r.rec != nil {
		r.report.of(r.rec)
	}
	return r.report, err
}

// errOther is a source with the cluster id of another one.
var errOther = errors.New("this is another source than the one that was being imported")

// unknown is a number of keys that is still to be counted.
const unknown = -1

// errWentBack is a source that is not what it was.
var errWentBack = errors.New("the source is at a lower revision than the one that was being imported: it was restored from a backup, or it is another one")

// begin reads the record, or makes one, and chooses the revision to read the source at.
func (r *run) begin(ctx context.Context) error {
	head, err := r.head(ctx, r.Source.KV, "source")
	if err != nil {
		return err
	}
	source := strconv.FormatUint(head.ClusterId, 16)
	if r.rec, err = r.records.load(ctx); err != nil && !(r.Restart && errors.Is(err, errUnreadable)) {
		return err
	}
	switch {
	case r.rec == nil || r.Restart:
		r.survey = true
		return r.first(ctx, source, head.Revision)
	case r.rec.Source != source || !bytes.Equal(r.rec.Prefix, r.Prefix):
		return fmt.Errorf("an import from another source is under way, or was done last: cluster %s%s, revision %d; this is cluster %s%s. Finish it with its own --from, or forget it with --restart",
			r.rec.Source, prefixWords(r.rec.Prefix), r.rec.Revision, source, prefixWords(r.Prefix))
	case head.Revision < r.rec.Revision:
		return fmt.Errorf("%w (%d, %d); --restart begins anew", errWentBack, head.Revision, r.rec.Revision)
	case r.rec.Phase == phaseDone && r.Mode != VerifyOnly:
		r.survey = true
		r.again(head.Revision)
	default:
		r.judge = judgeOf(r.rec, r.Overwrite)
	}
	r.report.Resumed = true
	return nil
}

func prefixWords(prefix []byte) string {
	if len(prefix) == 0 {
		return ""
	}
	return fmt.Sprintf(", prefix %q", prefix)
}

// first makes the record of an import that begins.
func (r *run) first(ctx context.Context, source string, revision int64) error {
	target, err := r.head(ctx, r.Target.KV, "target")
	if err != nil {
		return err
	}
	r.rec = &record{
		Source: source, Prefix: r.Prefix, Revision: revision, Base: revision, Rounds: 1, Keys: unknown,
		Phase: phaseCopy, Start: target.Revision, Began: time.Now().UTC(),
	}
	r.judge = judgeOf(r.rec, r.Overwrite)
	return nil
}

// again begins a further round, at a newer revision.
func (r *run) again(revision int64) {
	r.rec.Revision, r.rec.Keys, r.rec.Phase = revision, unknown, phaseCopy
	r.rec.Rounds++
	r.judge = judgeOf(r.rec, r.Overwrite) // it has to know where the round before stopped
	r.rec.Next, r.rec.Ahead = nil, nil
}

// head asks one side where it stands, linearizably.
func (r *run) head(ctx context.Context, kv pb.KVClient, side string) (*pb.ResponseHeader, error) {
	resp, err := r.count(ctx, kv, side, r.span, 0)
	return resp.GetHeader(), err
}

// count counts the keys of a range at a revision.
func (r *run) count(ctx context.Context, kv pb.KVClient, side string, s span, revision int64) (resp *pb.RangeResponse, err error) {
	err = r.retry.do(ctx, func(ctx context.Context) error {
		resp, err = kv.Range(ctx, &pb.RangeRequest{Key: s.key, RangeEnd: s.end, Revision: revision, CountOnly: true})
		return err
	})
	if err != nil {
		return nil, scan{side: side}.explain(err)
	}
	return resp, nil
}

// rounds goes on until a round is done at a revision that the source has kept.
func (r *run) rounds(ctx context.Context) error {
	for {
		err := r.round(ctx)
		if err == nil || !errors.Is(err, compactedError{"source"}) {
			return err
		}
		head, err := r.head(ctx, r.Source.KV, "source")
		if err != nil {
			return err
		}
		r.again(head.Revision)
	}
}

// round is one round from where the record says.
func (r *run) round(ctx context.Context) error {
	total, err := r.count(ctx, r.Source.KV, "source", r.span, r.rec.Revision)
	if err != nil {
		return err
	}
	if r.rec.Keys >= 0 && r.rec.Keys != total.Count {
		return fmt.Errorf("%w: %d keys at revision %d, there were %d; --restart begins anew", errOther, total.Count, r.rec.Revision, r.rec.Keys)
	}
	r.rec.Keys = total.Count
	if err := r.checkReserved(ctx); err != nil {
		return err
	}
	switch r.Mode {
	case DryRun:
		return r.look(ctx, total.Count)
	case VerifyOnly:
		return r.verify(ctx, total.Count)
	}
	if r.survey {
		if err := r.look(ctx, total.Count); err != nil {
			return err
		}
		r.survey = false
	}
	if err := r.bring(ctx, total.Count); err != nil {
		return err
	}
	if err := r.verify(ctx, total.Count); err != nil {
		return err
	}
	r.rec.Phase, r.rec.Base, r.rec.Complete = phaseDone, r.rec.Revision, true
	r.rec.Next, r.rec.Ahead = nil, nil
	return r.records.save(ctx, r.rec)
}

// checkReserved refuses a source with keys that the target can't have.
func (r *run) checkReserved(ctx context.Context) error {
	if len(r.Prefix) > 0 && r.Prefix[0] != 0 {
		return nil
	}
	var resp *pb.RangeResponse
	err := r.retry.do(ctx, func(ctx context.Context) (err error) {
		resp, err = r.Source.KV.Range(ctx, &pb.RangeRequest{
			Key: reservedSpan.key, RangeEnd: reservedSpan.end, Revision: r.rec.Revision, Limit: 1, KeysOnly: true,
		})
		return err
	})
	if err != nil {
		return scan{side: "source"}.explain(err)
	}
	if resp.Count > 0 {
		return &ReservedError{Count: resp.Count, First: resp.Kvs[0].Key}
	}
	return nil
}

// ReservedError refuses a source that has keys which begin with a NUL byte.
type ReservedError struct {
	Count int64
	First []byte
}

// Error implements error.
func (e *ReservedError) Error() string {
	return fmt.Sprintf("the source has %d keys that begin with a NUL byte, the first is %q; such keys are sharder's own and can't be imported. Nothing has been written; move or delete them, or import by --prefix", e.Count, e.First)
}

// ConflictError refuses to overwrite what the import did not write.
type ConflictError struct {
	Count   int64
	First   []byte
	Written bool // other keys have been written
}

// Error implements error.
func (e *ConflictError) Error() string {
	what := "Nothing has been written"
	if e.Written {
		what = "They were left as they are"
	}
	return fmt.Sprintf("the target has, or has lost, %d keys otherwise than this import wrote them, the first is %q. %s. With --overwrite the target is made exactly what the source is; --dry-run shows how much that changes", e.Count, e.First, what)
}
