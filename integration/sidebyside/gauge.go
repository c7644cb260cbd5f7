package main

import (
	"bufio"
	"context"
	"fmt"
	"net/http"
	"strconv"
	"strings"
	"time"
)

// watcherGauge is etcd's own count of the watchers it serves.
const watcherGauge = "etcd_debugging_mvcc_watcher_total"

// metricsClient asks the etcds directly, whatever proxy the environment names.
var metricsClient = &http.Client{Transport: &http.Transport{DisableKeepAlives: true}, Timeout: 10 * time.Second}

// watchers is how many watchers the etcds behind a target serve at the moment, whoever
// opened them.
func (t *target) watchers(ctx context.Context) (float64, error) {
	var sum float64
	for _, addr := range t.stats {
		v, err := gauge(ctx, addr, watcherGauge)
		if err != nil {
			return 0, err
		}
		sum += v
	}
	return sum, nil
}

// gauge reads one value, without labels, from /metrics.
func gauge(ctx context.Context, addr, name string) (float64, error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://"+addr+"/metrics", nil)
	if err != nil {
		return 0, err
	}
	resp, err := metricsClient.Do(req)
	if err != nil {
		return 0, err
	}
	defer resp.Body.Close()
	lines := bufio.NewScanner(resp.Body)
	for lines.Scan() {
		if value, ok := strings.CutPrefix(lines.Text(), name+" "); ok {
			return strconv.ParseFloat(value, 64)
		}
	}
	if err := lines.Err(); err != nil {
		return 0, err
	}
	return 0, fmt.Errorf("%s has no %s in its metrics", addr, name)
}
