// Package port is the client port: the addresses where clients connect, and one place to
// take their connections from, gRPC's and HTTP's apart. Both come to the same address, in
// the clear or over TLS, as with etcd. It looks at how a connection begins and at nothing
// else: what comes after is between the client and the server that gets the connection.
package port
