package namespace

import pb "go.etcd.io/etcd/api/v3/etcdserverpb"

// Watch is a Watch service whose keys are those of the namespace.
func (n *Namespace) Watch(below pb.WatchServer) pb.WatchServer {
	return watchService{n: n, below: below}
}

type watchService struct {
	pb.UnsafeWatchServer
	n     *Namespace
	below pb.WatchServer
}

// Watch implements etcd's Watch service.
func (s watchService) Watch(stream pb.Watch_WatchServer) error {
	return s.below.Watch(watchStream{stream, s.n})
}

// watchStream is a client's stream as below reads it and writes to it. Only its own
// messages change: the events in them are shared with other watchers.
type watchStream struct {
	pb.Watch_WatchServer
	n *Namespace
}

// Recv translates what the client asks.
func (s watchStream) Recv() (*pb.WatchRequest, error) {
	r, err := s.Watch_WatchServer.Recv()
	if err != nil {
		return nil, err
	}
	return s.n.watchRequest(r), nil
}

// Send translates what the client is told.
func (s watchStream) Send(r *pb.WatchResponse) error {
	out, err := s.n.watchResponse(r)
	if err != nil {
		return err
	}
	return s.Watch_WatchServer.Send(out)
}
