package main

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"time"
)

// quotaPeriod is how often a process that has used its share gets a new one. Short, so
// that what is limited is how much it can do and not how long each request takes.
const quotaPeriod = 20 * time.Millisecond

// cgroups are where Linux keeps its control groups for CPU time, and how a limit is
// written there: cgroup v1 (Documentation/scheduler/sched-bwc.rst) and v2 (cgroup-v2.rst).
var cgroups = []struct {
	root  string
	proof string // a file that is in root if it is one
	files func(quota, period int64) map[string]string
}{
	{"/sys/fs/cgroup/cpu", "cpu.cfs_quota_us", func(quota, period int64) map[string]string {
		return map[string]string{"cpu.cfs_period_us": fmt.Sprint(period), "cpu.cfs_quota_us": fmt.Sprint(quota)}
	}},
	{"/sys/fs/cgroup", "cgroup.controllers", func(quota, period int64) map[string]string {
		return map[string]string{"cpu.max": fmt.Sprintf("%d %d", quota, period)}
	}},
}

// quota keeps processes to a share of one CPU, together, whatever else the machine does:
// a control group of Linux. Whoever made it removes it when the processes have ended.
type quota struct{ dir string }

// newQuota makes a control group with a name of its own. It needs the right to do so,
// which is root's as a rule.
func newQuota(name string, share float64) (*quota, error) {
	micros := quotaPeriod.Microseconds()
	var tried []error
	for _, c := range cgroups {
		q := &quota{filepath.Join(c.root, name)}
		_, err := os.Stat(filepath.Join(c.root, c.proof))
		if err == nil {
			err = q.create(c.files(int64(share*float64(micros)), micros))
		}
		if err == nil {
			return q, nil
		}
		tried = append(tried, err)
	}
	return nil, fmt.Errorf("no CPU quota can be set here (Linux, and as root): %w", errors.Join(tried...))
}

// create makes the directory and writes the limit into files that must be there: only a
// control group has them.
func (q *quota) create(files map[string]string) error {
	if err := os.Mkdir(q.dir, 0o755); err != nil {
		return err
	}
	for name, text := range files {
		if err := q.write(name, text); err != nil {
			return errors.Join(err, q.remove())
		}
	}
	return nil
}

func (q *quota) write(name, text string) error {
	f, err := os.OpenFile(filepath.Join(q.dir, name), os.O_WRONLY, 0)
	if err != nil {
		return err
	}
	_, err = f.WriteString(text)
	return errors.Join(err, f.Close())
}

// add puts a process under the limit, with all its threads.
func (q *quota) add(pid int) error { return q.write("cgroup.procs", strconv.Itoa(pid)) }

// remove takes the control group away.
func (q *quota) remove() error { return os.Remove(q.dir) }
