package cache

import (
	"strings"
	"sync"

	"google.golang.org/grpc"
	"google.golang.org/protobuf/proto"

	"go.etcd.io/etcd/server/v3/etcdserver/api/v3election/v3electionpb"
	"go.etcd.io/etcd/server/v3/etcdserver/api/v3lock/v3lockpb"
)

// Relayed goes around the calls that are passed on unread. Those that change who may do
// what make the cache forget everything; those of the services Lock and Election write
// keys, and count as such. Both before the client is told that they are done.
func (c *Cache) Relayed(next grpc.StreamHandler) grpc.StreamHandler {
	if c == nil {
		return next
	}
	return func(srv any, stream grpc.ServerStream) error {
		method, _ := grpc.MethodFromServerStream(stream)
		switch {
		case changesRights(method):
			defer c.Flush() // also if it is not known whether it was done
			return next(srv, stream)
		case recipes[method] == nil:
			return next(srv, stream)
		}
		t := &tap{ServerStream: stream}
		err := next(srv, t)
		if err == nil {
			if key, rev := recipes[method](t.last()); len(key) > 0 && rev > 0 {
				c.forget(key, nil, rev)
			}
		}
		return err
	}
}

// changesRights tells whether a method may change what a client may read. What only asks is
// known by name: whatever etcd adds counts as a change.
func changesRights(method string) bool {
	name, auth := strings.CutPrefix(method, "/etcdserverpb.Auth/")
	switch name {
	case "Authenticate", "AuthStatus", "UserGet", "UserList", "RoleGet", "RoleList":
		return false
	}
	return auth
}

// recipes tell which key a call wrote, and at which revision or before.
var recipes = map[string]func(in, out []byte) (key []byte, rev int64){
	"/v3lockpb.Lock/Lock": func(_, out []byte) ([]byte, int64) {
		var r v3lockpb.LockResponse
		_ = proto.Unmarshal(out, &r)
		return r.Key, r.Header.GetRevision()
	},
	"/v3lockpb.Lock/Unlock": func(in, out []byte) ([]byte, int64) {
		var q v3lockpb.UnlockRequest
		var r v3lockpb.UnlockResponse
		_, _ = proto.Unmarshal(in, &q), proto.Unmarshal(out, &r)
		return q.Key, r.Header.GetRevision()
	},
	"/v3electionpb.Election/Campaign": func(_, out []byte) ([]byte, int64) {
		var r v3electionpb.CampaignResponse
		_ = proto.Unmarshal(out, &r)
		return r.Leader.GetKey(), r.Header.GetRevision()
	},
	"/v3electionpb.Election/Proclaim": func(in, out []byte) ([]byte, int64) {
		var q v3electionpb.ProclaimRequest
		var r v3electionpb.ProclaimResponse
		_, _ = proto.Unmarshal(in, &q), proto.Unmarshal(out, &r)
		return q.Leader.GetKey(), r.Header.GetRevision()
	},
	"/v3electionpb.Election/Resign": func(in, out []byte) ([]byte, int64) {
		var q v3electionpb.ResignRequest
		var r v3electionpb.ResignResponse
		_, _ = proto.Unmarshal(in, &q), proto.Unmarshal(out, &r)
		return q.Leader.GetKey(), r.Header.GetRevision()
	},
}

// tap keeps the last message in each direction. One that was read without a type is all
// unknown fields.
type tap struct {
	grpc.ServerStream
	mu      sync.Mutex
	in, out []byte
}

// RecvMsg reads a message of the client.
func (t *tap) RecvMsg(m any) error {
	err := t.ServerStream.RecvMsg(m)
	if err == nil {
		t.keep(&t.in, m)
	}
	return err
}

// SendMsg passes a message to the client.
func (t *tap) SendMsg(m any) error {
	t.keep(&t.out, m)
	return t.ServerStream.SendMsg(m)
}

func (t *tap) keep(to *[]byte, m any) {
	if m, ok := m.(proto.Message); ok {
		t.mu.Lock()
		*to = m.ProtoReflect().GetUnknown()
		t.mu.Unlock()
	}
}

func (t *tap) last() (in, out []byte) {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.in, t.out
}
