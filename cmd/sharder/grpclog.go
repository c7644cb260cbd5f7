package main

import (
	"io"
	"os"

	"google.golang.org/grpc/grpclog"
)

// quietGRPC keeps gRPC's libraries from printing past the log: it is what clients send that makes
// no sense, for the most part. Who sets gRPC's own variable for it sees it as ever. It is called
// before anything of gRPC is used.
func quietGRPC() {
	if os.Getenv("GRPC_GO_LOG_SEVERITY_LEVEL") == "" {
		grpclog.SetLoggerV2(grpclog.NewLoggerV2(io.Discard, io.Discard, io.Discard))
	}
}
