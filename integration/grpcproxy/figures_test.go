package grpcproxy_test

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"net/http"
	"os"
	"strconv"
	"strings"
	"testing"
	"time"
)

// figures are the metrics that a server tells at /metrics.
type figures struct{ text string }

// figuresOf reads them; addr is host:port.
func figuresOf(addr string) (figures, error) {
	code, text, err := get("http://" + addr + "/metrics")
	if err == nil && code != http.StatusOK {
		err = fmt.Errorf("/metrics of %s: %d", addr, code)
	}
	return figures{text}, err
}

// get asks over HTTP.
func get(url string) (code int, text string, err error) {
	c := http.Client{Timeout: soon, Transport: &http.Transport{DisableKeepAlives: true}}
	r, err := c.Get(url)
	if err != nil {
		return 0, "", err
	}
	defer r.Body.Close()
	body, err := io.ReadAll(r.Body)
	return r.StatusCode, string(body), err
}

// sum is that of all series of a metric whose labels contain all of the texts.
func (f figures) sum(name string, labels ...string) (total float64) {
	lines := bufio.NewScanner(strings.NewReader(f.text))
	lines.Buffer(nil, 1<<20)
	for lines.Scan() {
		series, value, ok := strings.Cut(lines.Text(), " ")
		if base, rest, _ := strings.Cut(series, "{"); !ok || base != name || !contains(rest, labels) {
			continue
		}
		if v, err := strconv.ParseFloat(value, 64); err == nil {
			total += v
		}
	}
	return total
}

func contains(text string, parts []string) bool {
	for _, p := range parts {
		if !strings.Contains(text, p) {
			return false
		}
	}
	return true
}

// behindFigures are those of the first member behind the door.
func (d *door) behindFigures() figures {
	d.t.Helper()
	f, err := figuresOf(hostPort(d.cluster.Endpoint(0)))
	if err != nil {
		d.t.Fatal(err)
	}
	return f
}

// resident is the memory of a process that is no file: RssAnon of /proc/PID/status
// (proc_pid_status(5)), in MiB.
func resident(t *testing.T, pid int) int {
	t.Helper()
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
	if err != nil {
		t.Skip("no /proc here")
	}
	_, rest, _ := strings.Cut(string(text), "\nRssAnon:")
	n, err := strconv.Atoi(strings.Fields(rest)[0])
	if err != nil {
		t.Fatal(err)
	}
	return n >> 10
}

// eventually waits until something is so, and tells whether it has become so.
func eventually(ctx context.Context, ok func() bool) bool {
	for end := time.Now().Add(soon); !ok(); time.Sleep(20 * time.Millisecond) {
		if time.Now().After(end) || ctx.Err() != nil {
			return false
		}
	}
	return true
}
