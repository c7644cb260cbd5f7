package grpcproxy_test

import (
	"context"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/sharder/sharder/integration/etcdproc"
)

// probeBound is how long a probe may take at one door.
const probeBound = 4 * time.Minute

// probe asks something at a door and says what it sees, in lines that are the same whatever
// stands at the door, as long as it is etcd's API.
type probe struct {
	// fault is what etcd grpc-proxy does instead, nothing if it does as etcd.
	fault string
	// mayDo says that grpc-proxy does so now and then.
	mayDo bool
	// want is what etcd says: there has to be each of these lines.
	want []string

	members int               // of the cluster, 1 if not given
	etcd    []string          // flags of its members
	cluster []etcdproc.Option // of the cluster
	cables  bool              // the proxy reaches the members by cables
	flags   []string          // flags of the proxies

	// run asks. An error is a line, too: the last one.
	run func(ctx context.Context, d *door) error
}

// check looks through every door at once and compares.
func (p probe) check(t *testing.T) {
	t.Helper()
	t.Parallel()
	names := []string{straight, sharder}
	if os.Getenv("PROBE_ETCD_PROXY") != "" {
		names = append(names, etcdsProxy)
	}
	saw := make([][]string, len(names))
	t.Run("at", func(t *testing.T) {
		for i, name := range names {
			t.Run(name, func(t *testing.T) {
				t.Parallel()
				saw[i] = p.at(t, name)
			})
		}
	})
	for _, line := range p.want {
		if !slices.Contains(saw[0], line) {
			t.Errorf("etcd itself does not say %q, but:\n%s", line, strings.Join(saw[0], "\n"))
		}
	}
	for i := range names[1:] {
		p.compare(t, names[i+1], saw[0], saw[i+1])
	}
}

// at runs the probe at one door.
func (p probe) at(t *testing.T, name string) []string {
	d := open(t, name, &p)
	bound := probeBound
	if name == etcdsProxy {
		bound /= 8 // there it waits for what never comes
	}
	ctx, cancel := context.WithTimeout(t.Context(), bound)
	defer cancel()
	if err := p.run(ctx, d); err != nil {
		d.say("the probe ended: %v", err)
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.seen
}

// compare wants the same, or, of etcd's proxy, something else where there is a fault.
func (p probe) compare(t *testing.T, name string, want, got []string) {
	t.Helper()
	difference := diff(want, got)
	switch {
	case name == etcdsProxy && p.fault != "" && !p.mayDo && difference == "":
		t.Errorf("etcd's grpc-proxy does as etcd: the probe sees nothing, or it is mended: %s", p.fault)
	case name == etcdsProxy:
		t.Logf("etcd's grpc-proxy (%s):\n%s", p.fault, difference)
	case difference != "":
		t.Errorf("%s does not do as etcd:\n%s", name, difference)
	}
}

// diffLines is how many lines of differences are shown.
const diffLines = 24

// diff is the lines that are not in both, in place, or nothing.
func diff(want, got []string) string {
	var b strings.Builder
	shown := 0
	for i := range max(len(want), len(got)) {
		w, g := "(nothing)", "(nothing)"
		if i < len(want) {
			w = want[i]
		}
		if i < len(got) {
			g = got[i]
		}
		if w != g && shown < diffLines {
			shown++
			b.WriteString("- " + w + "\n+ " + g + "\n")
		}
	}
	return b.String()
}
