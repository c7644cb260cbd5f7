package watch

import (
	"google.golang.org/protobuf/proto"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
)

// send writes one response, in fragments if the client asked for those and it is too
// large. As with etcd, every fragment but the last says so, and one event is never
// split.
func send(stream pb.Watch_WatchServer, it item, limit int64) error {
	r := it.response
	if !it.fragment || len(r.Events) < 2 || int64(proto.Size(r)) < limit {
		return stream.Send(r)
	}
	head := proto.Size(&pb.WatchResponse{Header: r.Header, WatchId: r.WatchId, Fragment: true})
	for rest := r.Events; len(rest) > 0; {
		n, size := 0, int64(head)
		for n < len(rest) {
			size += eventSize(rest[n])
			if n > 0 && size >= limit {
				break
			}
			n++
		}
		err := stream.Send(&pb.WatchResponse{
			Header: r.Header, WatchId: r.WatchId, Events: rest[:n], Fragment: n < len(rest),
		})
		if err != nil {
			return err
		}
		rest = rest[n:]
	}
	return nil
}
