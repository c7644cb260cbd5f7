package script

import (
	"context"
	"fmt"
	"io"
	"strconv"

	"google.golang.org/protobuf/proto"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
)

// call is one statement while it runs.
type call struct {
	env  *env
	ctx  context.Context
	st   *Statement
	args *args
	want int // lines expected
}

// commands are the statements there are, by their first word. It is filled in init,
// because the parser asks it for names.
var commands map[string]func(*call) []Line

func init() {
	commands = map[string]func(*call) []Line{
		"put": doPut, "get": doGet, "del": doDelete, "txn": doTxn, "compact": doCompact, "fill": doFill,
		"grant": doGrant, "revoke": doRevoke, "keepalive": doKeepAlive, "ttl": doTTL, "leases": doLeases,
		"watch": doWatch, "expect": doExpect, "quiet": doQuiet, "cancel": doCancel, "cancel-id": doCancelID,
		"progress": doProgress, "half-close": doHalfClose, "raw": doRaw, "bytes": doBytes,
		"restart": func(c *call) []Line { c.env.restart(false); return []Line{lineOf("ok")} },
		"kill":    func(c *call) []Line { c.env.restart(true); return []Line{lineOf("ok")} },
	}
}

// reply renders what a unary call gave.
func reply[R proto.Message](c *call, r R, err error) []Line {
	return c.env.render(r, err)
}

func doPut(c *call) []Line {
	r := putRequest(c.args)
	res, err := pb.NewKVClient(c.env.conn).Put(c.ctx, r)
	return reply(c, res, err)
}

func doGet(c *call) []Line {
	stream := c.args.flag("stream")
	r := rangeRequest(c.args)
	if stream {
		res, err := rangeStream(c, r)
		return reply(c, res, err)
	}
	res, err := pb.NewKVClient(c.env.conn).Range(c.ctx, r)
	return reply(c, res, err)
}

// rangeStream reads a RangeStream to its end and merges the pages, as the API says
// they are to be merged.
func rangeStream(c *call, r *pb.RangeRequest) (*pb.RangeResponse, error) {
	s, err := pb.NewKVClient(c.env.conn).RangeStream(c.ctx, r)
	if err != nil {
		return nil, err
	}
	all := &pb.RangeStreamResponse{RangeResponse: &pb.RangeResponse{}}
	for {
		page, err := s.Recv()
		if err == io.EOF {
			return all.RangeResponse, nil
		}
		if err != nil {
			return nil, err
		}
		proto.Merge(all, page)
	}
}

func doDelete(c *call) []Line {
	r := deleteRequest(c.args)
	res, err := pb.NewKVClient(c.env.conn).DeleteRange(c.ctx, r)
	return reply(c, res, err)
}

func doTxn(c *call) []Line {
	c.args.done()
	res, err := pb.NewKVClient(c.env.conn).Txn(c.ctx, txnRequest(c.env, c.st.Body))
	return reply(c, res, err)
}

func doCompact(c *call) []Line {
	r := &pb.CompactionRequest{Revision: c.env.number(c.args.next("a revision").Text), Physical: c.args.flag("physical")}
	c.args.done()
	conn := c.env.conn
	if at := c.env.server.Compact; at != "" {
		var err error
		if conn, err = dial(at); err != nil {
			fail("dial: %v", err)
		}
		defer conn.Close()
	}
	res, err := pb.NewKVClient(conn).Compact(c.ctx, r)
	return reply(c, res, err)
}

func doFill(c *call) []Line {
	prefix := c.args.next("a prefix").Text
	n := c.env.number(c.args.next("a number").Text)
	value := c.args.next("a value").Value()
	c.args.done()
	kv := pb.NewKVClient(c.env.conn)
	for i := range n {
		key := fmt.Appendf(nil, "%s%04d", prefix, i)
		if res, err := kv.Put(c.ctx, &pb.PutRequest{Key: key, Value: value}); err != nil {
			return reply(c, res, err)
		}
	}
	return []Line{lineOf("filled", strconv.FormatInt(n, 10))}
}

func doGrant(c *call) []Line {
	name := c.args.next("a name").Text
	r := &pb.LeaseGrantRequest{TTL: c.args.number("ttl"), ID: c.args.number("id")}
	c.args.done()
	res, err := pb.NewLeaseClient(c.env.conn).LeaseGrant(c.ctx, r)
	if err == nil {
		c.env.leases.set(name, res.ID)
	}
	return reply(c, res, err)
}

func doRevoke(c *call) []Line {
	r := &pb.LeaseRevokeRequest{ID: c.env.lease(c.args.next("a lease").Text)}
	c.args.done()
	res, err := pb.NewLeaseClient(c.env.conn).LeaseRevoke(c.ctx, r)
	return reply(c, res, err)
}

func doKeepAlive(c *call) []Line {
	r := &pb.LeaseKeepAliveRequest{ID: c.env.lease(c.args.next("a lease").Text)}
	c.args.done()
	res, err := keepAlive(c, r)
	return reply(c, res, err)
}

// keepAlive opens a stream for one keep-alive and takes the one answer.
func keepAlive(c *call, r *pb.LeaseKeepAliveRequest) (*pb.LeaseKeepAliveResponse, error) {
	ctx, cancel := context.WithCancel(c.ctx)
	defer cancel()
	s, err := pb.NewLeaseClient(c.env.conn).LeaseKeepAlive(ctx)
	if err != nil {
		return nil, err
	}
	// A failed send shows its reason at Recv.
	_ = s.Send(r)
	return s.Recv()
}

func doTTL(c *call) []Line {
	r := &pb.LeaseTimeToLiveRequest{ID: c.env.lease(c.args.next("a lease").Text), Keys: c.args.flag("keys")}
	c.args.done()
	res, err := pb.NewLeaseClient(c.env.conn).LeaseTimeToLive(c.ctx, r)
	return reply(c, res, err)
}

func doLeases(c *call) []Line {
	c.args.done()
	res, err := pb.NewLeaseClient(c.env.conn).LeaseLeases(c.ctx, &pb.LeaseLeasesRequest{})
	return reply(c, res, err)
}
