package main

import (
	"context"
	"fmt"
	"strings"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/sharder/sharder/stages/members"
	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
)

// memberRow is a member, and what it says; for JSON. What a verb doesn't ask for is left out.
type memberRow struct {
	Name       string   `json:"name,omitempty"`
	ID         string   `json:"id,omitempty"` // in hex
	ClientURLs []string `json:"client_urls,omitempty"`
	PeerURLs   []string `json:"peer_urls,omitempty"`
	Learner    bool     `json:"learner,omitempty"`

	Version     string   `json:"version,omitempty"`
	Leader      string   `json:"leader,omitempty"` // the id of the member that it follows
	DBSize      int64    `json:"db_size,omitempty"`
	DBSizeInUse int64    `json:"db_size_in_use,omitempty"`
	RaftTerm    uint64   `json:"raft_term,omitempty"`
	RaftIndex   uint64   `json:"raft_index,omitempty"`
	RaftApplied uint64   `json:"raft_applied_index,omitempty"`
	Errors      []string `json:"errors,omitempty"`

	Hash         uint32 `json:"hash,omitempty"`
	HashRevision int64  `json:"hash_revision,omitempty"`
	Compacted    int64  `json:"compacted,omitempty"`

	Alarm string `json:"alarm,omitempty"`

	Problem string `json:"problem,omitempty"` // why it said nothing
}

// members gives the members that the command is about: the one that was named, or all of the
// cluster. Over several shards of which none was named there are none, and no error.
func (c *memberCommand) members(ctx context.Context) ([]*pb.Member, error) {
	named := c.shard
	member := ""
	if named == "" {
		member = members.LeaderName // so that it is not the sharders that are listed
	}
	list, err := c.cluster().MemberList(c.to(ctx, c.shard, member), &pb.MemberListRequest{})
	switch {
	case status.Code(err) == codes.InvalidArgument && named == "" && c.member == "" && strings.Contains(err.Error(), members.ShardKey):
		return nil, nil
	case err != nil:
		return nil, err
	case c.member == "":
		return list.Members, nil
	}
	st, err := c.maintenance().Status(c.to(ctx, c.shard, c.member), &pb.StatusRequest{})
	if err != nil {
		return nil, err
	}
	for _, m := range list.Members {
		if m.ID == st.Header.GetMemberId() {
			return []*pb.Member{m}, nil
		}
	}
	return nil, fmt.Errorf("the member %x has left its cluster", st.Header.GetMemberId())
}

// list lists sharders, or the members of a shard.
func (c *memberCommand) list(ctx context.Context) error {
	list, err := c.cluster().MemberList(c.to(ctx, c.shard, ""), &pb.MemberListRequest{Linearizable: true})
	if err != nil {
		return err
	}
	var rows []memberRow
	for _, m := range list.Members {
		rows = append(rows, rowOf(m))
	}
	return c.print(rows, "NAME\tID\tCLIENT URLS\tPEER URLS\tLEARNER", func(r memberRow) string {
		return strings.Join([]string{orDash(r.Name), r.ID, orDash(strings.Join(r.ClientURLs, ", ")), orDash(strings.Join(r.PeerURLs, ", ")), yes(r.Learner)}, "\t")
	})
}

// rowOf is a member that was not asked anything yet.
func rowOf(m *pb.Member) memberRow {
	return memberRow{Name: m.Name, ID: hex(m.ID), ClientURLs: m.ClientURLs, PeerURLs: m.PeerURLs, Learner: m.IsLearner}
}

// status asks members how they are, or all shards together.
func (c *memberCommand) status(ctx context.Context) error {
	all, err := c.members(ctx)
	if err != nil {
		return err
	}
	var rows []memberRow
	ask := func(row memberRow, member string) {
		st, err := c.maintenance().Status(c.to(ctx, c.shard, member), &pb.StatusRequest{})
		if err != nil {
			row.Problem = status.Convert(err).Message()
		} else {
			row.Version, row.Leader, row.Learner, row.Errors = st.Version, hex(st.Leader), st.IsLearner, st.Errors
			row.DBSize, row.DBSizeInUse = st.DbSize, st.DbSizeInUse
			row.RaftTerm, row.RaftIndex, row.RaftApplied = st.RaftTerm, st.RaftIndex, st.RaftAppliedIndex
		}
		rows = append(rows, row)
	}
	for _, m := range all {
		ask(rowOf(m), hex(m.ID))
	}
	if len(all) == 0 {
		ask(memberRow{Name: "all shards"}, "")
	}
	return c.print(rows, "NAME\tID\tVERSION\tROLE\tDB SIZE\tIN USE\tTERM\tINDEX\tAPPLIED\tERRORS", func(r memberRow) string {
		return strings.Join([]string{
			orDash(r.Name), orDash(r.ID), r.Version, r.role(), bytesOf(r.DBSize), bytesOf(r.DBSizeInUse),
			count(int64(r.RaftTerm)), count(int64(r.RaftIndex)), count(int64(r.RaftApplied)), orDash(strings.Join(r.Errors, ", ")),
		}, "\t")
	})
}

// role is what a member is in its cluster.
func (r memberRow) role() string {
	switch {
	case r.ID == "":
		return "-"
	case r.Learner:
		return "learner"
	case r.Leader == "0":
		return "no leader"
	case r.Leader == r.ID:
		return "leader"
	}
	return "follower"
}

// hashKV compares what members hold: all up to the same revision.
func (c *memberCommand) hashKV(ctx context.Context) error {
	all, err := c.members(ctx)
	if err == nil && len(all) == 0 {
		_, err = c.maintenance().HashKV(c.to(ctx, "", ""), &pb.HashKVRequest{}) // which says what is missing
	}
	if err != nil {
		return err
	}
	if c.revision == 0 {
		first, err := c.maintenance().HashKV(c.to(ctx, c.shard, members.LeaderName), &pb.HashKVRequest{})
		if err != nil {
			return err
		}
		c.revision = first.Header.GetRevision()
	}
	var rows []memberRow
	for _, m := range all {
		row := rowOf(m)
		h, err := c.maintenance().HashKV(c.to(ctx, c.shard, row.ID), &pb.HashKVRequest{Revision: c.revision})
		if err != nil {
			row.Problem = status.Convert(err).Message()
		} else {
			row.Hash, row.HashRevision, row.Compacted = h.Hash, c.revision, h.CompactRevision
		}
		rows = append(rows, row)
	}
	err = c.print(rows, "NAME\tID\tHASH\tREVISION\tCOMPACTED", func(r memberRow) string {
		return fmt.Sprintf("%s\t%s\t%08x\t%d\t%s", orDash(r.Name), r.ID, r.Hash, r.HashRevision, count(r.Compacted))
	})
	return firstOf(err, differ(rows))
}

// differ is an error if members with the same history have different hashes.
func differ(rows []memberRow) error {
	for _, a := range rows {
		for _, b := range rows {
			if a.Problem == "" && b.Problem == "" && a.Compacted == b.Compacted && a.Hash != b.Hash {
				return fmt.Errorf("%s and %s hold different things at revision %d: one of them is corrupt", a.Name, b.Name, a.HashRevision)
			}
		}
	}
	return nil
}

func firstOf(errs ...error) error {
	for _, err := range errs {
		if err != nil {
			return err
		}
	}
	return nil
}
