package main

import (
	"bytes"
	"context"
	"log/slog"
	"os"
	"os/signal"
	"path"
	"strings"
	"sync"
	"syscall"
	"time"

	"github.com/sharder/sharder/conf"
)

// reloads has a running sharder do what its file says now: at a SIGHUP, and when the file has
// changed. What can change while it runs is done at once and without dropping a connection;
// of everything else the log says that it needs a restart. A file with mistakes changes
// nothing.
//
// nil is one that never reloads, for an import.
//
// Whoever can change something says so with on, before run. The files that the configuration
// names (certificates, keys, revocations, passwords) are read again by those who use them.
type reloads struct {
	file   string
	log    *slog.Logger
	hangup chan os.Signal

	mu    sync.Mutex
	rules []reloadRule
	begun []byte // what the file said when sharder started
	last  []byte // what it said when it was used last
	seen  []byte // what was there when it was looked at last, with mistakes or not
	state reloadState
}

// reloadRule is who does what some keys say.
type reloadRule struct {
	keys  []string // such as shards.*.endpoints
	apply func(*conf.Config) error
}

// reloadState is for metrics.
type reloadState struct {
	ok      bool      // the file, as it is, is a configuration, and was used
	at      time.Time // when it was used last
	pending int       // keys that need a restart
}

// newReloads remembers what the file says, and takes SIGHUP, which would end the process, from
// now until run has ended. Without a file nothing is ever reloaded, and SIGHUP does what it does.
func newReloads(file string, log *slog.Logger) *reloads {
	r := &reloads{file: file, log: log, hangup: make(chan os.Signal, 1), state: reloadState{ok: true, at: time.Now()}}
	if src, err := os.ReadFile(file); err == nil {
		r.begun, r.last, r.seen = src, src, src
		signal.Notify(r.hangup, syscall.SIGHUP)
	}
	return r
}

// on has apply called when one of the keys says something else. A * stands for a name.
func (r *reloads) on(apply func(*conf.Config) error, keys ...string) {
	if r == nil {
		return
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	r.rules = append(r.rules, reloadRule{keys, apply})
}

// lookAtFile is how often the file is looked at.
const lookAtFile = 2 * time.Second

// run reloads until ctx ends.
func (r *reloads) run(ctx context.Context) error {
	if r == nil {
		return nil
	}
	defer signal.Stop(r.hangup)
	tick := time.NewTicker(lookAtFile)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-r.hangup:
			r.look(true)
		case <-tick.C:
			r.look(false)
		}
	}
}

// look reads the file and uses it if it has changed. Only if asked it speaks of a file
// that has not.
func (r *reloads) look(asked bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.begun == nil {
		return
	}
	src, err := os.ReadFile(r.file)
	switch {
	case err != nil:
		if asked || r.state.ok {
			r.log.Error("reload: the file can't be read; what was there before goes on", "error", err)
		}
		r.state.ok = false
		return
	case bytes.Equal(src, r.seen) && r.state.ok:
		if asked {
			r.log.Info("reload: the file says what it said before", "file", r.file)
		}
		return
	case bytes.Equal(src, r.seen) && !asked:
		return // told already
	}
	r.seen = src
	r.use(src)
}

// use does what the file says.
func (r *reloads) use(src []byte) {
	r.state.ok = false
	cfg, err := conf.Parse(r.file, src)
	if err != nil {
		for _, text := range strings.Split(err.Error(), "\n") {
			r.log.Error("reload: the file has a mistake, and nothing of it is used", "mistake", text)
		}
		return
	}
	changed, err := conf.Changes(r.last, src)
	if err != nil {
		r.log.Error("reload", "error", err)
		return
	}
	r.state.ok = r.apply(cfg, changed)
	if r.state.ok {
		r.last, r.state.at = src, time.Now()
	}
	r.tellPending(src)
}

// apply has everybody do what changed for him, once, and tells whether all could.
func (r *reloads) apply(cfg *conf.Config, changed []conf.Change) bool {
	ok := true
	for _, rule := range r.rules {
		var keys []string
		for _, c := range changed {
			if rule.has(c.Key) {
				keys = append(keys, c.Key)
			}
		}
		if keys == nil {
			continue
		}
		if err := rule.apply(cfg); err != nil {
			r.log.Error("reload: what was there before goes on", "keys", strings.Join(keys, ", "), "error", err)
			ok = false
			continue
		}
		r.log.Info("reload: done", "keys", strings.Join(keys, ", "))
	}
	return ok
}

// has tells whether a key is one of the rule's.
func (r reloadRule) has(key string) bool {
	for _, pattern := range r.keys {
		if ok, _ := path.Match(strings.ReplaceAll(pattern, ".", "/"), strings.ReplaceAll(key, ".", "/")); ok {
			return true
		}
	}
	return false
}

// tellPending says what the file asks for that needs a restart.
func (r *reloads) tellPending(src []byte) {
	all, err := conf.Changes(r.begun, src)
	if err != nil {
		return // not reached: both were read before
	}
	r.state.pending = 0
	for _, c := range all {
		live := false
		for _, rule := range r.rules {
			live = live || rule.has(c.Key)
		}
		if !live {
			r.state.pending++
			r.log.Warn("reload: this needs a restart", "key", c.Key, "line", c.Line, "running", c.Old, "file", c.New)
		}
	}
}

// status is for metrics.
func (r *reloads) status() (ok bool, at time.Time, pending int) {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.state.ok, r.state.at, r.state.pending
}
