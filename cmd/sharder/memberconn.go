package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"math"
	"os"
	"strings"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/metadata"

	"github.com/sharder/sharder/stages/members"
	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"
)

// memberConn is a connection to a running sharder, as a user of the cluster behind it. dial
// opens it, and close ends it.
type memberConn struct {
	endpoint string
	dialTLS
	user, passwordFile string
	password           string

	conn  *grpc.ClientConn
	token string // of the user; empty without one
}

func (c *memberConn) connFlags(flags *flag.FlagSet) {
	flags.StringVar(&c.endpoint, "endpoint", "127.0.0.1:2379", "the `address` of the sharder: host:port, http://host:port, https://host:port or unix:///path")
	c.dialTLS.flags(flags)
	flags.StringVar(&c.user, "user", "", "our `name[:password]` at the cluster")
	flags.StringVar(&c.passwordFile, "password-file", "", "the `file` with the password")
}

// understand checks what the flags mean together.
func (c *memberConn) understand() error {
	name, password, has := strings.Cut(c.user, ":")
	switch {
	case c.user == "" && c.passwordFile != "":
		return errors.New("--password-file is for --user, which is not there")
	case has && c.passwordFile != "":
		return errors.New("the password is in --user already; take --password-file out")
	case c.user != "" && !has && c.passwordFile == "":
		return errors.New("there is no password; write --user name:password, or name a file with --password-file")
	}
	if err := c.dialTLS.check(); err != nil {
		return err
	}
	c.user, c.password = name, password
	if c.passwordFile != "" {
		text, err := os.ReadFile(c.passwordFile)
		if err != nil {
			return fmt.Errorf("--password-file: %w", err)
		}
		c.password, _, _ = strings.Cut(strings.TrimRight(string(text), "\r\n"), "\n")
	}
	return nil
}

// dial opens the connection, and logs in.
func (c *memberConn) dial(ctx context.Context) error {
	scheme, address, ok := strings.Cut(c.endpoint, "://")
	switch {
	case !ok:
		scheme, address = "", c.endpoint
	case scheme == "unix" || scheme == "unixs":
		address = "unix:" + address
	}
	target := address
	if !strings.HasPrefix(address, "unix:") {
		target = "passthrough:///" + strings.TrimSuffix(address, "/")
	}
	creds := insecure.NewCredentials()
	if c.dialTLS.given() || scheme == "https" || scheme == "unixs" {
		conf, err := c.dialTLS.config()
		if err != nil {
			return err
		}
		creds = credentials.NewTLS(conf)
	}
	conn, err := grpc.NewClient(target, grpc.WithTransportCredentials(creds), grpc.WithNoProxy(), grpc.WithUserAgent("sharder member"),
		grpc.WithDefaultCallOptions(grpc.MaxCallRecvMsgSize(math.MaxInt32), grpc.MaxCallSendMsgSize(math.MaxInt32)))
	if err != nil {
		return err
	}
	c.conn = conn
	if c.user == "" {
		return nil
	}
	resp, err := pb.NewAuthClient(conn).Authenticate(ctx, &pb.AuthenticateRequest{Name: c.user, Password: c.password})
	if err != nil {
		c.close()
		return err
	}
	c.token = resp.Token
	return nil
}

func (c *memberConn) close() { _ = c.conn.Close() }

// to gives a context for calls about a member of a shard; what is empty is not named.
func (c *memberConn) to(ctx context.Context, shard, member string) context.Context {
	for key, value := range map[string]string{members.ShardKey: shard, members.MemberKey: member, rpctypes.TokenFieldNameGRPC: c.token} {
		if value != "" {
			ctx = metadata.AppendToOutgoingContext(ctx, key, value)
		}
	}
	return ctx
}

func (c *memberConn) cluster() pb.ClusterClient         { return pb.NewClusterClient(c.conn) }
func (c *memberConn) maintenance() pb.MaintenanceClient { return pb.NewMaintenanceClient(c.conn) }
