package main

import (
	"bytes"
	"os"
	"slices"
	"strconv"
	"strings"
	"time"
)

// tick is the unit of CPU time in /proc/stat: USER_HZ is 100 on all of Linux.
const tick = 10 * time.Millisecond

// usage is CPU time spent so far, user and system, by what stands in front of etcd, by
// the etcds that hold the keys and by the one that holds the order. known is false where
// nobody tells (clock_linux.go).
type usage struct {
	proxy, etcd, order time.Duration
	known              bool
}

// usage reads what a target's processes have spent.
func (t *target) usage() usage {
	u := usage{known: true}
	add := func(sum *time.Duration, p *process) {
		spent, ok := cpu(p.cmd.Process.Pid)
		*sum += spent
		u.known = u.known && ok
	}
	if t.proxy != nil {
		add(&u.proxy, t.proxy)
	}
	for _, m := range t.shards {
		add(&u.etcd, m.process)
	}
	if t.order != nil {
		add(&u.order, t.order.process)
	}
	return u
}

// since puts the cost of each of n operations into a result: what was spent from
// before until u.
func (u usage) since(before usage, n float64, r result) {
	if !u.known || !before.known || n == 0 {
		return
	}
	if u.proxy > 0 {
		r[proxyCPU] = micros(u.proxy-before.proxy) / n
	}
	r[etcdCPU] = micros(u.etcd-before.etcd) / n
	if u.order > 0 {
		r[orderCPU] = micros(u.order-before.order) / n
	}
}

// moment is how busy the machine was until some time: the load average over a minute,
// and CPU time since it was started, of everything and of this program with what it
// started. The load of a run is mostly its own; foreign is what others did meanwhile.
type moment struct {
	at         time.Time
	load       string
	busy, ours time.Duration
	known      bool
}

// snapshot is the present moment.
func (s *stand) snapshot() moment {
	m := moment{at: time.Now(), load: "unknown", known: true}
	if text, err := os.ReadFile("/proc/loadavg"); err == nil {
		first, _, _ := bytes.Cut(text, []byte(" "))
		m.load = string(first)
	}
	pids := []int{os.Getpid()}
	for _, p := range slices.Concat(s.etcds, s.proxies) {
		pids = append(pids, p.cmd.Process.Pid)
	}
	for _, pid := range pids {
		spent, ok := cpu(pid)
		m.ours += spent
		m.known = m.known && ok
	}
	var ok bool
	m.busy, ok = busy()
	m.known = m.known && ok
	return m
}

// foreign is how many CPUs other programs used between two moments, on average.
func (m moment) foreign(before moment) (float64, bool) {
	others := (m.busy - before.busy) - (m.ours - before.ours)
	return max(0, others.Seconds()/m.at.Sub(before.at).Seconds()), m.known && before.known
}

// busy is the first line of /proc/stat without what is idle: user, nice, system, irq
// and softirq, but not idle, iowait and steal (proc_stat(5)).
func busy() (time.Duration, bool) {
	text, err := os.ReadFile("/proc/stat")
	if err != nil {
		return 0, false
	}
	fields := strings.Fields(string(text[:bytes.IndexByte(text, '\n')]))
	if len(fields) < 8 || fields[0] != "cpu" {
		return 0, false
	}
	var sum int
	for _, i := range []int{1, 2, 3, 6, 7} {
		n, err := strconv.Atoi(fields[i])
		if err != nil {
			return 0, false
		}
		sum += n
	}
	return time.Duration(sum) * tick, true
}
