package script

import (
	"time"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
)

func doWatch(c *call) []Line {
	name := c.args.next("a name").Text
	on := c.args.opt("on")
	if on == "" {
		on = name
	}
	r := watchRequest(c.args)
	if c.env.watches[name] != nil {
		fail("there is a watch %s", name)
	}
	s := c.env.streams[on]
	if s == nil {
		var err error
		if s, err = openStream(c.env); err != nil {
			return c.env.render(nil, err)
		}
		c.env.streams[on] = s
	}
	w := &watcher{name: name, stream: s, in: newInbox()}
	c.env.watches[name] = w
	if err := s.create(w, r); err != nil {
		fail("create: %v", err)
	}
	return w.in.take(1, callBound)
}

// watch takes the name of a watch.
func (c *call) watch() *watcher {
	name := c.args.next("a watch").Text
	w := c.env.watches[name]
	if w == nil {
		fail("no watch %s", name)
	}
	return w
}

// stream takes the name of a stream.
func (c *call) stream() *stream {
	name := c.args.next("a stream").Text
	s := c.env.streams[name]
	if s == nil {
		fail("no stream %s", name)
	}
	return s
}

// sortedOn tells whether the lines of a statement may come in any order on a server, and
// are sorted.
func (st *Statement) sortedOn(shape Shape) bool {
	if shape != ManyShards && !(shape == Ordered && st.Apart) {
		return false
	}
	if st.Words[0].Text != "expect" {
		return false
	}
	for _, w := range st.Words[1:] {
		if w.Text == "unordered" && !w.Quoted {
			return true
		}
	}
	return false
}

func doExpect(c *call) []Line {
	w := c.watch()
	c.args.flag("unordered")
	c.args.done()
	if c.want == 0 {
		fail("expect without lines; nothing is quiet")
	}
	lines := w.in.take(c.want, callBound)
	if c.st.sortedOn(c.env.shape) {
		lines = sorted(lines)
	}
	return lines
}

func doQuiet(c *call) []Line {
	w := c.watch()
	c.args.done()
	time.Sleep(quietBound)
	if lines := w.in.drain(); len(lines) > 0 {
		return lines
	}
	return []Line{lineOf("quiet")}
}

func doCancel(c *call) []Line {
	w := c.watch()
	c.args.done()
	if w.refused {
		return []Line{lineOf("none")}
	}
	cancelWatch(w.stream, w.id)
	return w.in.take(1, callBound)
}

func doCancelID(c *call) []Line {
	s := c.stream()
	id := c.env.number(c.args.next("an id").Text)
	c.args.done()
	cancelWatch(s, id)
	return []Line{lineOf("ok")}
}

// cancelWatch sends a cancel request.
func cancelWatch(s *stream, id int64) {
	r := &pb.WatchCancelRequest{WatchId: id}
	if err := s.client.Send(&pb.WatchRequest{RequestUnion: &pb.WatchRequest_CancelRequest{CancelRequest: r}}); err != nil {
		fail("cancel: %v", err)
	}
}

func doProgress(c *call) []Line {
	s := c.stream()
	c.args.done()
	r := &pb.WatchRequest{RequestUnion: &pb.WatchRequest_ProgressRequest{ProgressRequest: &pb.WatchProgressRequest{}}}
	if err := s.client.Send(r); err != nil {
		fail("progress: %v", err)
	}
	return s.progress.take(1, callBound)
}

func doHalfClose(c *call) []Line {
	s := c.stream()
	c.args.done()
	if err := s.client.CloseSend(); err != nil {
		fail("half-close: %v", err)
	}
	return []Line{lineOf("ok")}
}
