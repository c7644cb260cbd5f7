package main

import (
	"context"
	"strings"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/sharder/sharder/stages"
)

// others serve the services that are not registered, by method: calls that have a way of
// their own, and one for the rest. Their handle is a grpc.StreamHandler.
type others struct {
	ways map[string]grpc.StreamHandler // by full method name
	rest grpc.StreamHandler
}

func (o others) handle(srv any, stream grpc.ServerStream) error {
	method, _ := grpc.MethodFromServerStream(stream)
	if way := o.ways[method]; way != nil {
		return way(srv, stream)
	}
	return o.rest(srv, stream)
}

// unary makes a chain one of the ways. newRequest makes the message that is read.
func unary[I, O any](newRequest func() I, chain func(context.Context, I) (O, error)) grpc.StreamHandler {
	return func(_ any, stream grpc.ServerStream) error {
		req := newRequest()
		if err := stream.RecvMsg(req); err != nil {
			return err
		}
		resp, err := chain(stream.Context(), req)
		if err != nil {
			return stages.ErrorStatus(err)
		}
		return stream.SendMsg(resp)
	}
}

// refuseB refuses, over shards with revisions of their own, what nobody serves.
func refuseB(_ any, stream grpc.ServerStream) error {
	method, _ := grpc.MethodFromServerStream(stream)
	return unserved(method, "use an endpoint of the etcd cluster in question")
}

// refuseC refuses, over shards with one order, what nobody serves.
func refuseC(_ any, stream grpc.ServerStream) error {
	method, _ := grpc.MethodFromServerStream(stream)
	remedy := "use an endpoint of the etcd cluster in question"
	if strings.HasPrefix(method, "/etcdserverpb.Auth/") {
		remedy = "sharder keeps no users of its own; let clients reach it through a network that you trust"
	}
	return unserved(method, remedy)
}

// unserved says that a method is not served, and what to use.
func unserved(method, remedy string) error {
	if strings.HasPrefix(method, "/etcdserverpb.Cluster/") {
		remedy = "the members of an etcd cluster are changed there, with etcdctl and its endpoints"
	}
	return status.Errorf(codes.Unimplemented, "sharder: %s is not served over several etcd clusters: %s", method, remedy)
}
