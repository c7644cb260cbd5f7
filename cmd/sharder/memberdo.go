package main

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"strconv"
	"strings"
	"text/tabwriter"

	"github.com/sharder/sharder/stages/members"
	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
)

// defrag defragments.
func (c *memberCommand) defrag(ctx context.Context) error {
	if _, err := c.maintenance().Defragment(c.to(ctx, c.shard, c.member), &pb.DefragmentRequest{}); err != nil {
		return err
	}
	of := "all members"
	if c.member != "" {
		of = "member " + c.member
	}
	if c.shard != "" {
		of += " of " + c.shard
	}
	return c.say(memberRow{Name: c.member}, "defragmented "+of)
}

// moveLeader has a member lead.
func (c *memberCommand) moveLeader(ctx context.Context) error {
	whom := c.args[0]
	list, err := c.cluster().MemberList(c.to(ctx, c.shard, members.LeaderName), &pb.MemberListRequest{})
	if err != nil {
		return err
	}
	id, notHex := strconv.ParseUint(strings.TrimPrefix(whom, "0x"), 16, 64)
	var names []string
	for _, m := range list.Members {
		if m.Name != whom && (notHex != nil || m.ID != id) {
			names = append(names, fmt.Sprintf("%s (%x)", m.Name, m.ID))
			continue
		}
		if _, err := c.maintenance().MoveLeader(c.to(ctx, c.shard, ""), &pb.MoveLeaderRequest{TargetID: m.ID}); err != nil {
			return err
		}
		return c.say(rowOf(m), fmt.Sprintf("%s (%x) leads", m.Name, m.ID))
	}
	return fmt.Errorf("there is no member %q; there is %s", whom, strings.Join(names, ", "))
}

// alarm lists alarms, or takes all of them back.
func (c *memberCommand) alarm(ctx context.Context) error {
	list, err := c.maintenance().Alarm(c.to(ctx, c.shard, ""), &pb.AlarmRequest{Action: pb.AlarmRequest_GET})
	if err != nil {
		return err
	}
	var rows []memberRow
	for _, a := range list.Alarms {
		rows = append(rows, memberRow{ID: hex(a.MemberID), Alarm: a.Alarm.String()})
		if c.args[0] == "disarm" {
			r := &pb.AlarmRequest{Action: pb.AlarmRequest_DEACTIVATE, MemberID: a.MemberID, Alarm: a.Alarm}
			if _, err := c.maintenance().Alarm(c.to(ctx, c.shard, ""), r); err != nil {
				return err
			}
		}
	}
	title := map[string]string{"list": "ID\tALARM", "disarm": "ID\tDISARMED"}[c.args[0]]
	return c.print(rows, title, func(r memberRow) string { return r.ID + "\t" + r.Alarm })
}

// snapshot saves a database, with etcd's hash of it behind it, as etcdutl wants it. The
// file is there when it is whole.
func (c *memberCommand) snapshot(ctx context.Context) (err error) {
	path := c.args[0]
	part, err := os.OpenFile(path+".part", os.O_CREATE|os.O_TRUNC|os.O_RDWR, 0o600)
	if err != nil {
		return err
	}
	defer func() {
		err = errors.Join(err, part.Close())
		if err == nil {
			err = os.Rename(part.Name(), path)
		}
		if err != nil {
			_ = os.Remove(part.Name())
		}
	}()
	size, err := c.download(ctx, part)
	if err == nil {
		err = wholeSnapshot(part, size)
	}
	if err == nil {
		err = part.Sync()
	}
	if err != nil {
		return err
	}
	return c.say(memberRow{Name: c.member, DBSize: size - sha256.Size}, fmt.Sprintf("saved %s to %s", bytesOf(size), path))
}

// download writes a snapshot down as it comes.
func (c *memberCommand) download(ctx context.Context, to io.Writer) (size int64, err error) {
	s, err := c.maintenance().Snapshot(c.to(ctx, c.shard, c.member), &pb.SnapshotRequest{})
	for err == nil {
		var m *pb.SnapshotResponse
		if m, err = s.Recv(); err != nil {
			break
		}
		var n int
		n, err = to.Write(m.Blob)
		size += int64(n)
	}
	if errors.Is(err, io.EOF) {
		err = nil
	}
	return size, err
}

// wholeSnapshot checks a snapshot by the hash at its end.
func wholeSnapshot(file *os.File, size int64) error {
	if size <= sha256.Size {
		return fmt.Errorf("the snapshot has %d bytes: it is none", size)
	}
	h, want := sha256.New(), make([]byte, sha256.Size)
	if _, err := io.Copy(h, io.NewSectionReader(file, 0, size-sha256.Size)); err != nil {
		return err
	}
	if _, err := file.ReadAt(want, size-sha256.Size); err != nil {
		return err
	}
	if !bytes.Equal(h.Sum(nil), want) {
		return errors.New("the snapshot is not what its hash says: it was damaged on the way")
	}
	return nil
}

// print prints a table, or JSON. Members that said nothing have a line of their own, and are
// an error.
func (c *memberCommand) print(rows []memberRow, title string, line func(memberRow) string) error {
	var mute []string
	for _, r := range rows {
		if r.Problem != "" {
			mute = append(mute, fmt.Sprintf("%s: %s", r.Name, r.Problem))
		}
	}
	if c.json {
		if rows == nil {
			rows = []memberRow{}
		}
		e := json.NewEncoder(c.stdout)
		e.SetIndent("", "  ")
		_ = e.Encode(rows)
	} else {
		t := tabwriter.NewWriter(c.stdout, 0, 0, 2, ' ', 0)
		fmt.Fprintln(t, title)
		for _, r := range rows {
			if r.Problem != "" {
				fmt.Fprintf(t, "%s\t%s\tno answer\n", orDash(r.Name), orDash(r.ID))
				continue
			}
			fmt.Fprintln(t, line(r))
		}
		_ = t.Flush()
	}
	if len(mute) > 0 {
		return errors.New(strings.Join(mute, "; "))
	}
	return nil
}

// say tells what was done.
func (c *memberCommand) say(row memberRow, text string) error {
	if c.json {
		return json.NewEncoder(c.stdout).Encode(struct {
			Done string `json:"done"`
			memberRow
		}{text, row})
	}
	_, err := fmt.Fprintln(c.stdout, text)
	return err
}

func hex(id uint64) string { return strconv.FormatUint(id, 16) }

func orDash(s string) string {
	if s == "" {
		return "-"
	}
	return s
}

func yes(b bool) string {
	if b {
		return "yes"
	}
	return "-"
}
