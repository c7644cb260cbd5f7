package main

import (
	"bytes"
	"os"
	"strconv"
	"time"
)

// tick is the unit of CPU time in /proc: USER_HZ is 100 on all of Linux.
const tick = 10 * time.Millisecond

// usage is CPU time spent so far, user and system, by what stands in front of etcd and
// by the etcds behind it. known is false where there is no /proc.
type usage struct {
	proxy, etcd time.Duration
	known       bool
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
	for _, p := range t.etcds {
		add(&u.etcd, p)
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
}

// cpu is fields 14 and 15 of /proc/PID/stat (proc_pid_stat(5)). The second field is
// the program's name in brackets and may hold anything, so counting begins behind it.
func cpu(pid int) (time.Duration, bool) {
	text, err := os.ReadFile("/proc/" + strconv.Itoa(pid) + "/stat")
	if err != nil {
		return 0, false
	}
	fields := bytes.Fields(text[bytes.LastIndexByte(text, ')')+1:])
	if len(fields) < 13 {
		return 0, false
	}
	user, err1 := strconv.Atoi(string(fields[11]))
	system, err2 := strconv.Atoi(string(fields[12]))
	return time.Duration(user+system) * tick, err1 == nil && err2 == nil
}

// load is the machine's load average over a minute, "unknown" where there is no /proc.
func load() string {
	text, err := os.ReadFile("/proc/loadavg")
	if err != nil {
		return "unknown"
	}
	first, _, _ := bytes.Cut(text, []byte(" "))
	return string(first)
}
