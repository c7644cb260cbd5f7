package main

import (
	"bufio"
	"context"
	"fmt"
	"net/http"
	"strconv"
	"strings"
)

// What the cells read from etcd's metrics: a series' name, or how several begin.
const (
	watcherGauge     = "etcd_debugging_mvcc_watcher_total " // watchers served at the moment
	keepAliveCounter = `grpc_server_msg_received_total{grpc_method="LeaseKeepAlive"`
)

// metricsClient asks the etcds directly, whatever proxy the environment names.
var metricsClient = &http.Client{Transport: &http.Transport{DisableKeepAlives: true}, Timeout: requestBound}

// watchers is how many watchers the etcds behind a target serve at the moment, whoever
// opened them.
func (t *target) watchers(ctx context.Context) (float64, error) { return t.sum(ctx, watcherGauge) }

// keepAlives is how many keep-alives the etcds behind a target have been asked for,
// by whomever.
func (t *target) keepAlives(ctx context.Context) (float64, error) {
	return t.sum(ctx, keepAliveCounter)
}

// sum adds up the series that begin so over the etcds behind a target.
func (t *target) sum(ctx context.Context, prefix string) (float64, error) {
	var sum float64
	for _, m := range t.members() {
		v, err := series(ctx, m.addr, prefix)
		if err != nil {
			return 0, err
		}
		sum += v
	}
	return sum, nil
}

// series adds up the series of one /metrics that begin with prefix; 0 if none does, as
// counters that were never counted aren't there.
func series(ctx context.Context, addr, prefix string) (float64, error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://"+addr+"/metrics", nil)
	if err != nil {
		return 0, err
	}
	resp, err := metricsClient.Do(req)
	if err != nil {
		return 0, err
	}
	defer resp.Body.Close()
	var sum float64
	lines := bufio.NewScanner(resp.Body)
	for lines.Scan() {
		line := lines.Text()
		if !strings.HasPrefix(line, prefix) {
			continue
		}
		v, err := strconv.ParseFloat(line[strings.LastIndexByte(line, ' ')+1:], 64)
		if err != nil {
			return 0, fmt.Errorf("%s: %w", addr, err)
		}
		sum += v
	}
	return sum, lines.Err()
}
