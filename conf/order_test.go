package conf

import (
	"fmt"
	"testing"
	"time"
)

// withOrder is a configuration with the given lines in its table [order].
func withOrder(t *testing.T, lines string) *Order {
	t.Helper()
	return parse(t, "data_dir = \"d\"\nshards.a.embedded = true\n[order]\nembedded = true\n"+lines).Order
}

func TestTheDefaultsOfTheOrderClusterAreThoseOfTheDocumentation(t *testing.T) {
	equal(t, withOrder(t, ""), &Order{
		Shard:         Shard{Name: OrderName, Embedded: true, HealthInterval: time.Second, Timeout: 30 * time.Second, Upstream: defaultUpstream()},
		FirstRevision: 1, CommitInterval: 2 * time.Millisecond, CheckpointEntries: 10_000, BatchItems: 32,
	})
}

func TestAutoCompactionIsReadAsEtcdReadsItsFlags(t *testing.T) {
	for _, c := range []struct {
		mode, retention string
		want            AutoCompaction
	}{
		{"periodic", "10m", AutoCompaction{Period: 10 * time.Minute}},
		{"periodic", "2", AutoCompaction{Period: 2 * time.Hour}},
		{"periodic", "0", AutoCompaction{}},
		{"", "90s", AutoCompaction{Period: 90 * time.Second}},
		{"revision", "1000", AutoCompaction{Revisions: 1000}},
		{"revision", "0", AutoCompaction{}},
	} {
		lines := fmt.Sprintf("auto_compaction_retention = %q\n", c.retention)
		if c.mode != "" {
			lines += fmt.Sprintf("auto_compaction_mode = %q\n", c.mode)
		}
		have := withOrder(t, lines).AutoCompaction
		if have != c.want || have.Off() != (c.retention == "0") {
			t.Errorf("mode %q, retention %q: have %+v, want %+v", c.mode, c.retention, have, c.want)
		}
	}
}

func TestOneShardWithAnOrderClusterHasItsOwnCredentials(t *testing.T) {
	c := parse(t, `
[order]
endpoints = ["10.0.0.1:1"]
[shards.a]
endpoints = ["10.0.0.2:1"]
username = "sharder"
password_file = "pw"
`)
	if c.Shards[0].Username != "sharder" || c.Order == nil {
		t.Errorf("have %+v", c)
	}
}
