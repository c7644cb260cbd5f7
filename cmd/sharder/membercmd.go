package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"os/signal"
	"slices"
	"strings"
	"syscall"
	"time"

	"google.golang.org/grpc/status"
)

// sharder member addresses members of the etcd clusters behind a running sharder. What it
// does etcdctl does, too, but etcdctl can't say which member it means.

const memberUsage = `usage: sharder member VERB [flags]

Asks a running sharder, or has it do something, about one member of an etcd cluster behind
it, or all of them:

  list                 the sharders; with --shard the members of that cluster
  status               how members are
  defrag               defragment members, one after the other, the leader last
  move-leader MEMBER   have MEMBER lead its cluster
  snapshot FILE        save the database of a member, as etcdctl snapshot save does
  hashkv               compare what members hold
  alarm list|disarm    the alarms of a cluster

Where sharder has several shards, --shard names one; "[order]" is the order cluster.
--member is an endpoint (host:port), an id in hex, a name, or leader. Without, status and
hashkv ask all members, defrag goes over all, and a snapshot is taken of a follower.

Exit code: 0 if all went well, 1 if not, 2 for wrong flags.

`

// memberVerbs are the verbs, each with how many arguments it takes.
var memberVerbs = map[string]struct {
	args int
	do   func(*memberCommand, context.Context) error
}{
	"list":        {0, (*memberCommand).list},
	"status":      {0, (*memberCommand).status},
	"defrag":      {0, (*memberCommand).defrag},
	"move-leader": {1, (*memberCommand).moveLeader},
	"snapshot":    {1, (*memberCommand).snapshot},
	"hashkv":      {0, (*memberCommand).hashKV},
	"alarm":       {1, (*memberCommand).alarm},
}

// memberCommand is one call of sharder member.
type memberCommand struct {
	memberConn
	verb          string
	args          []string
	shard, member string
	revision      int64
	json          bool
	timeout       time.Duration
	stdout        io.Writer
}

func runMember(args []string, stdout, stderr io.Writer) int {
	c := &memberCommand{stdout: stdout}
	switch err := c.parse(args, stderr); {
	case errors.Is(err, flag.ErrHelp):
		return 0
	case err != nil:
		fmt.Fprintln(stderr, "sharder member:", err)
		return exitMisused
	}
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGINT, syscall.SIGTERM)
	defer stop()
	if c.timeout > 0 {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeout(ctx, c.timeout)
		defer cancel()
	}
	err := c.dial(ctx)
	if err == nil {
		defer c.close()
		err = memberVerbs[c.verb].do(c, ctx)
	}
	if err != nil {
		fmt.Fprintln(stderr, "sharder member:", strings.TrimPrefix(status.Convert(err).Message(), "sharder: "))
		return exitFailed
	}
	return 0
}

// parse reads verb, flags and arguments, in any order behind the verb.
func (c *memberCommand) parse(args []string, stderr io.Writer) error {
	flags := c.flags()
	help := func() {
		fmt.Fprint(stderr, memberUsage)
		flags.SetOutput(stderr)
		flags.PrintDefaults()
	}
	if len(args) == 0 || strings.HasPrefix(args[0], "-") || args[0] == "help" {
		help()
		if len(args) > 0 && slices.Contains([]string{"-h", "--help", "-help", "help"}, args[0]) {
			return flag.ErrHelp
		}
		return errors.New("a verb comes first: list, status, defrag, move-leader, snapshot, hashkv or alarm")
	}
	c.verb = args[0]
	if _, ok := memberVerbs[c.verb]; !ok {
		return fmt.Errorf("%q is no verb; there are list, status, defrag, move-leader, snapshot, hashkv and alarm", c.verb)
	}
	for rest := args[1:]; len(rest) > 0; {
		if err := flags.Parse(rest); err != nil {
			if errors.Is(err, flag.ErrHelp) {
				help()
			}
			return err
		}
		if rest = flags.Args(); len(rest) > 0 {
			c.args, rest = append(c.args, rest[0]), rest[1:]
		}
	}
	if c.verb == "alarm" && len(c.args) == 0 {
		c.args = []string{"list"}
	}
	return c.understand(memberVerbs[c.verb].args)
}

// flags are those of all verbs.
func (c *memberCommand) flags() *flag.FlagSet {
	flags := flag.NewFlagSet("sharder member", flag.ContinueOnError)
	flags.SetOutput(io.Discard)
	c.connFlags(flags)
	flags.StringVar(&c.shard, "shard", "", "the `name` of the shard, or [order]")
	flags.StringVar(&c.member, "member", "", "the `member`: host:port, id in hex, name, or leader")
	flags.Int64Var(&c.revision, "rev", 0, "hashkv: up to this `revision`; by default the leader's newest")
	flags.BoolVar(&c.json, "json", false, "print JSON")
	flags.DurationVar(&c.timeout, "timeout", -1, "how long it may take; by default 10s, and as long as it takes for defrag and snapshot")
	return flags
}

// understand checks what the arguments mean together.
func (c *memberCommand) understand(args int) error {
	switch {
	case len(c.args) > args:
		return fmt.Errorf("unexpected argument %q", c.args[args])
	case len(c.args) < args && c.verb == "snapshot":
		return errors.New("where to? Name a file: sharder member snapshot FILE")
	case len(c.args) < args:
		return errors.New("who shall lead? Name a member: sharder member move-leader MEMBER")
	case c.verb == "alarm" && c.args[0] != "list" && c.args[0] != "disarm":
		return fmt.Errorf("%q is not list or disarm", c.args[0])
	case c.revision != 0 && c.verb != "hashkv":
		return errors.New("--rev is for hashkv")
	case c.member != "" && slices.Contains([]string{"move-leader", "alarm", "list"}, c.verb):
		return fmt.Errorf("--member has no meaning with %s", c.verb)
	}
	if c.timeout < 0 {
		c.timeout = 10 * time.Second
		if c.verb == "defrag" || c.verb == "snapshot" {
			c.timeout = 0
		}
	}
	return c.memberConn.understand()
}
