package history

import (
	"google.golang.org/protobuf/proto"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	"go.etcd.io/etcd/api/v3/mvccpb"
)

// Watch is what one watcher received, on all the streams it had one after the other.
type Watch struct {
	Name     string
	Request  *pb.WatchCreateRequest // its start revision is that of the first segment
	Segments []*Segment
	// Shared says that its streams have other watches too. Progress that is asked for is
	// one answer for all of them: where they are not level it may be older than what this
	// one has had. It must be true all the same.
	Shared bool
}

// Segment is one stream of a Watch: where it was asked to start (0 is from now on) and
// what came, "created" first.
type Segment struct {
	Through   string
	Start     int64
	Responses []*pb.WatchResponse
}

// Next is the revision at which a watcher goes on when a segment has ended, 0 if nothing
// is known: behind the last event or progress, or else where the segment began. After
// half a fragmented revision it is that revision again.
func (s *Segment) Next() int64 {
	next := s.Start
	for _, r := range s.Responses {
		switch {
		case r.Canceled:
		case r.Created && next == 0, !r.Created && len(r.Events) == 0:
			next = max(next, r.Header.Revision+1)
		case len(r.Events) > 0 && r.Fragment:
			next = max(next, r.Events[len(r.Events)-1].Kv.ModRevision)
		case len(r.Events) > 0:
			next = max(next, r.Events[len(r.Events)-1].Kv.ModRevision+1)
		}
	}
	return next
}

// Until is the watch without anything behind a revision.
func (w *Watch) Until(rev int64) *Watch {
	cut := &Watch{Name: w.Name, Request: w.Request, Shared: w.Shared}
	for _, s := range w.Segments {
		part := &Segment{Through: s.Through, Start: s.Start}
		for _, r := range s.Responses {
			n := len(r.Events)
			for n > 0 && r.Events[n-1].Kv.ModRevision > rev {
				n--
			}
			if n == 0 && !r.Created && !r.Canceled && r.Header.Revision > rev {
				break
			}
			if n < len(r.Events) {
				r = proto.CloneOf(r)
				r.Events = r.Events[:n]
			}
			part.Responses = append(part.Responses, r)
		}
		cut.Segments = append(cut.Segments, part)
	}
	return cut
}

// Progress is how many promises the watch got that everything up to a revision has come.
func (w *Watch) Progress() (n int) {
	for _, s := range w.Segments {
		for _, r := range s.Responses {
			if !r.Created && !r.Canceled && len(r.Events) == 0 {
				n++
			}
		}
	}
	return n
}

// Events is all that the watch received, in the order it came.
func (w *Watch) Events() (all []*mvccpb.Event) {
	for _, s := range w.Segments {
		for _, r := range s.Responses {
			all = append(all, r.Events...)
		}
	}
	return all
}
