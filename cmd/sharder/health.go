package main

import (
	"context"
	"encoding/json"
	"net/http"
	"slices"
	"strings"

	"github.com/sourcegraph/conc"

	"github.com/sharder/sharder/stages"
	"go.etcd.io/etcd/api/v3/version"
)

// healthReply is what /health answers.
type healthReply struct {
	Health string `json:"health"`
	Reason string `json:"reason"`
}

// versionReply is what /version answers; etcds before 3.6 do not tell the last one.
type versionReply struct {
	Server  string `json:"etcdserver"`
	Cluster string `json:"etcdcluster"`
	Storage string `json:"storage,omitempty"`
}

// health is etcd's answer to whether all is well. For a sharder that is: it serves, the
// order log and every shard answer, and nothing has raised an alarm. As with etcd,
// ?exclude=NOSPACE overlooks an alarm and ?serializable=true what only needs a quorum.
func (s *site) health(w http.ResponseWriter, r *http.Request) {
	reply := healthReply{Health: "true"}
	if reasons := s.unwell(r); len(reasons) > 0 {
		reply = healthReply{"false", strings.Join(reasons, "; ")}
	}
	text, err := json.Marshal(reply)
	switch {
	case err != nil:
		http.Error(w, err.Error(), http.StatusInternalServerError) // not reached: two strings
	case reply.Health != "true":
		http.Error(w, string(text), http.StatusServiceUnavailable)
	default:
		_, _ = w.Write(text) // the other side may have gone
	}
}

// unwell are the reasons for which the answer is no.
func (s *site) unwell(r *http.Request) (reasons []string) {
	if err := s.checkServing(); err != nil {
		return []string{err.Error()}
	}
	query := r.URL.Query()
	serializable, excluded := query.Get("serializable") == "true", query["exclude"]
	report := s.reporter.get(r.Context())
	for i, f := range report.faults {
		switch {
		case f.quorum && serializable, f.alarm != "" && slices.Contains(excluded, f.alarm):
		case f.etcd != "" && report.Order == nil && len(report.Shards) == 1:
			reasons = append(reasons, f.etcd)
		default:
			reasons = append(reasons, report.Problems[i])
		}
	}
	return reasons
}

// version answers as etcd does, with the lowest versions of the shards.
func (s *site) version(w http.ResponseWriter, r *http.Request) {
	all, err := s.reporter.version(r.Context())
	if err != nil {
		http.Error(w, message(err), http.StatusServiceUnavailable)
		return
	}
	text, err := json.Marshal(versionReply(all))
	if err != nil {
		http.Error(w, err.Error(), http.StatusInternalServerError) // not reached: three strings
		return
	}
	w.Header().Set("Content-Type", "application/json")
	_, _ = w.Write(text) // the other side may have gone
}

// version gives the lowest versions of the shards. One that can't be asked is an error: it
// may have the lowest.
func (r *reporter) version(ctx context.Context) (version.Versions, error) {
	return r.versions.get(ctx, func(ctx context.Context) (lowest version.Versions, err error) {
		clusters := r.fleet.clusters
		all, errs := make([]version.Versions, len(clusters)), make([]error, len(clusters))
		var wg conc.WaitGroup
		for i, c := range clusters {
			wg.Go(func() { all[i], errs[i] = c.Versions(ctx) })
		}
		wg.Wait()
		for i, v := range all {
			if errs[i] != nil {
				return lowest, errs[i]
			}
			lowest.Server = stages.LowestVersion(lowest.Server, v.Server)
			lowest.Cluster = stages.LowestVersion(lowest.Cluster, v.Cluster)
			lowest.Storage = stages.LowestVersion(lowest.Storage, v.Storage)
		}
		return lowest, nil
	})
}
