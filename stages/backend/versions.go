package backend

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"slices"
	"strings"
	"time"

	"github.com/sharder/sharder/stages"
	"go.etcd.io/etcd/api/v3/version"
)

// versionTimeout bounds the question to one member.
const versionTimeout = time.Second

// Versions are those that etcd tells everybody at /version: of its program, of the cluster,
// and of what is stored. A member is asked there, since etcd tells no stranger by gRPC where
// authentication is on. If no member answers, what the probes have found is told, and what
// they can't find is left empty; if that is nothing it is an error.
func (c *Cluster) Versions(ctx context.Context) (version.Versions, error) {
	members := slices.Clone(c.roster.Load().seats)
	slices.SortStableFunc(members, func(a, b seat) int { return a.rank() - b.rank() })
	var all version.Versions
	var err error
	for _, m := range members {
		if all, err = m.versions(ctx); err == nil {
			break
		}
	}
	for _, m := range members {
		all.Server = stages.LowestVersion(all.Server, m.now().version)
	}
	if all.Server == "" {
		return all, c.unavailable("no member tells its version: %v", err)
	}
	if all.Cluster == "" {
		all.Cluster = withoutPatch(all.Server)
	}
	return all, nil
}

// rank puts members that answer before those that nobody knows of, and these before others.
func (m *member) rank() int { return map[health]int{up: 0, unknown: 1, down: 2}[m.now().health] }

// versions asks the member at /version.
func (m *member) versions(ctx context.Context) (all version.Versions, err error) {
	ctx, cancel := context.WithTimeout(ctx, versionTimeout)
	defer cancel()
	url := "http://" + m.at.authority() + "/version"
	transport := &http.Transport{DisableKeepAlives: true, DialContext: m.at.dial}
	if m.at.secure {
		url = "https" + strings.TrimPrefix(url, "http")
		transport.TLSClientConfig = m.at.tls.Clone()
	}
	r, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
	if err != nil {
		return all, err
	}
	resp, err := transport.RoundTrip(r)
	if err != nil {
		return all, err
	}
	defer resp.Body.Close()
	if resp.StatusCode != http.StatusOK {
		return all, fmt.Errorf("%s answers %s", url, resp.Status)
	}
	err = json.NewDecoder(io.LimitReader(resp.Body, 1<<16)).Decode(&all)
	return all, err
}

// withoutPatch is the version of a cluster whose oldest member has version v.
func withoutPatch(v string) string {
	parts := strings.SplitN(v, ".", 3)
	if len(parts) < 3 {
		return v
	}
	return parts[0] + "." + parts[1] + ".0"
}
