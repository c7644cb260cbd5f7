package backend

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"strings"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
)

// release is an etcd version without its patch.
type release struct{ major, minor int }

// fixedIn has the first patch of each old release in which a watch's progress can be
// relied upon: before, etcd may send it ahead of events. Later releases never had the
// fault; earlier ones still have it.
var fixedIn = map[release]int{{3, 4}: 25, {3, 5}: 8}

// wanted are the same versions in words.
const wanted = "sharder needs 3.4.25, 3.5.8, or 3.6 and later: before these, a watch may miss events"

// CheckVersion asks the cluster for its version, and refuses it if a member that has
// answered so far is older than what sharder can rely on. An error that carries a gRPC
// status says that the cluster could not be asked.
func (c *Cluster) CheckVersion(ctx context.Context) error {
	st, err := pb.NewMaintenanceClient(c).Status(ctx, &pb.StatusRequest{})
	if err != nil {
		return fmt.Errorf("sharder: %s: asking for its version: %w", calling(c.opts.Name), err)
	}
	var errs []error
	for _, m := range c.roster.Load().seats {
		errs = append(errs, c.outdated(m.member))
	}
	if err := errors.Join(errs...); err != nil {
		return err
	}
	if tooOld(st.Version) { // from a member that no probe has asked yet
		return fmt.Errorf("sharder: %s: it runs etcd %s; %s", calling(c.opts.Name), st.Version, wanted)
	}
	return nil
}

// outdated is an error if the member's version, as far as it is known, is too old.
func (c *Cluster) outdated(m *member) error {
	if v := m.now().version; tooOld(v) {
		return fmt.Errorf("sharder: %s: member %s runs etcd %s; %s", calling(c.opts.Name), m.endpoint, v, wanted)
	}
	return nil
}

// tooOld reports whether a version is known and too old. One that can't be read is taken
// for newer than this code.
func tooOld(version string) bool {
	core, _, _ := strings.Cut(version, "-") // 3.6.0-rc.1 has what 3.6 has
	parts := strings.Split(core, ".")
	if len(parts) != 3 {
		return false
	}
	var n [3]int
	for i, p := range parts {
		v, err := strconv.Atoi(p)
		if err != nil {
			return false
		}
		n[i] = v
	}
	r := release{n[0], n[1]}
	if patch, ok := fixedIn[r]; ok {
		return n[2] < patch
	}
	return r.major < 3 || r.major == 3 && r.minor < 4
}
