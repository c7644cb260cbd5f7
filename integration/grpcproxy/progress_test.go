package grpcproxy_test

import (
	"context"
	"fmt"
	"testing"
	"time"

	"github.com/sourcegraph/conc/pool"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	"go.etcd.io/etcd/api/v3/mvccpb"
)

// etcd's TestV3WatchProgressWaitsForSync and ...NoEvents: progress that is asked for while a
// replay is under way is told when that is done, also when there was nothing to replay.
func TestProgressWaitsForTheReplay(t *testing.T) {
	const writes = 2500
	probe{
		fault: "progress that is asked for is not told",
		want: []string{
			"k: all before the progress: 2500 events, revisions 2 to 2501", "k: progress at 2501",
			"nothing: all before the progress: 0 events, revisions 0 to 0", "nothing: progress at 2501",
		},
		run: func(ctx context.Context, d *door) error {
			if _, err := d.fill(ctx, writes, "v"); err != nil {
				return err
			}
			for _, key := range []string{"k", "nothing"} {
				w, err := d.watching(ctx)
				if err != nil {
					return err
				}
				if err := w.create(&pb.WatchCreateRequest{Key: []byte(key), RangeEnd: []byte(key + "~"), StartRevision: 1}); err != nil {
					return err
				}
				y, at, err := w.progressed()
				if err != nil {
					return err
				}
				d.say("%s: all before the progress: %v", key, y)
				d.say("%s: progress at %d", key, at)
			}
			return nil
		},
	}.check(t)
}

// progressed asks for progress, again and again as clients do, until it is told, and gives what
// came before.
func (w *stream) progressed() (y *tally, at int64, err error) {
	y = &tally{}
	for end := time.Now().Add(soon); time.Now().Before(end); {
		if err := w.progress(); err != nil {
			return y, 0, err
		}
		m, err := w.next(50 * time.Millisecond)
		switch {
		case err == errSilent:
		case err != nil:
			return y, 0, err
		case len(m.Events) == 0 && !m.Created:
			return y, m.Header.Revision, nil
		default:
			y.add(m.Events)
		}
	}
	return y, 0, errSilent
}

// etcd's TestV3NoEventsLostOnCompact, with many watches: a compaction that overtakes a watch
// either tells it so or takes nothing that it needs.
func TestNoEventIsLostToACompaction(t *testing.T) {
	const rounds, watchers = 6, 12
	probe{
		fault: "what is lost is not told",
		want:  []string{"nothing is lost"},
		run: func(ctx context.Context, d *door) error {
			for round := range rounds {
				last, err := d.fill(ctx, 400, "v")
				if err != nil {
					return err
				}
				first := last - 399
				p := pool.NewWithResults[string]().WithErrors()
				for i := range watchers {
					w, err := d.watching(ctx)
					if err != nil {
						return err
					}
					p.Go(func() (string, error) { return w.complete(first+int64(i*30), last) })
				}
				if _, err := d.client().Compact(ctx, first+200); err != nil {
					return err
				}
				told, err := p.Wait()
				if err != nil {
					return err
				}
				for _, text := range told {
					if text != "" {
						d.say("round %d: %s", round, text)
					}
				}
			}
			d.say("nothing is lost")
			return nil
		},
	}.check(t)
}

// complete watches from one revision to another and says what is wrong with what comes.
func (w *stream) complete(from, to int64) (string, error) {
	if err := w.create(ofK(from)); err != nil {
		return "", err
	}
	next := from
	for next <= to {
		m, err := w.next(soon)
		if err != nil {
			return fmt.Sprintf("from %d: at %d: %v", from, next, err), nil
		}
		if m.Canceled {
			if m.CompactRevision <= next {
				return fmt.Sprintf("from %d: at %d canceled, compacted at %d", from, next, m.CompactRevision), nil
			}
			return "", nil
		}
		for _, e := range m.Events {
			if e.Kv.ModRevision != next {
				return fmt.Sprintf("from %d: %d where %d was due", from, e.Kv.ModRevision, next), nil
			}
			next++
		}
	}
	return "", nil
}

// etcd's TestDeleteEventDrop_Issue18089 and TestStartWatcherFromCompactedRevision: a watch that
// begins at what was compacted last begins with it, deletions too.
func TestAWatchFromTheCompactedRevisionBeginsWithIt(t *testing.T) {
	probe{
		fault: "behind a watch that was compacted it hears nothing",
		want: []string{
			"from 5: watch 0 DELETE k@5, revision 7", "from 5: watch 0 PUT k@6, revision 7",
			"from 4: watch 0 canceled (\"\") compacted at 5, revision 0",
		},
		run: func(ctx context.Context, d *door) error {
			c := d.client()
			for _, v := range []string{"1", "2", "3", "", "5", "6"} { // revisions 2 to 7
				var err error
				if v == "" {
					_, err = c.Delete(ctx, "k")
				} else {
					_, err = c.Put(ctx, "k", v)
				}
				if err != nil {
					return err
				}
			}
			if _, err := c.Compact(ctx, 5); err != nil {
				return err
			}
			for _, from := range []int64{4, 5, 6} {
				w, err := d.watched(ctx, ofK(from))
				if err != nil {
					return err
				}
				for told := false; !told; {
					m, err := w.next(soon)
					if err != nil {
						return err
					}
					if m.Canceled {
						d.say("from %d: %s", from, d.told(m))
						break
					}
					for _, e := range m.Events { // however many come in one response
						d.say("from %d: %s", from, d.told(&pb.WatchResponse{Header: m.Header, WatchId: m.WatchId, Events: []*mvccpb.Event{e}}))
						told = told || e.Kv.ModRevision == 7
					}
				}
			}
			return nil
		},
	}.check(t)
}
