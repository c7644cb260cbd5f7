//go:build unix

package etcdproc

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"time"
)

// launch starts the process of member i.
func (c *Cluster) launch(i int) {
	c.t.Helper()
	m := c.members[i]
	log, err := os.OpenFile(filepath.Join(m.dir, "log"), os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		c.t.Fatalf("etcd %d: %v", i, err)
	}
	cmd := exec.Command(m.args[0], m.args[1:]...)
	cmd.Stdout, cmd.Stderr = log, log
	// A group of its own: an interrupt at the terminal is the test's to handle.
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	if err := cmd.Start(); err != nil {
		log.Close()
		c.t.Fatalf("etcd %d: %v", i, err)
	}
	m.cmd, m.log = cmd, log
}

// await waits until member i answers and knows a leader.
func (c *Cluster) await(i int) {
	c.t.Helper()
	var last error
	for end := time.Now().Add(readyTimeout); time.Now().Before(end); time.Sleep(50 * time.Millisecond) {
		st, err := c.status(i)
		if err == nil && st.Leader != 0 {
			return
		}
		last = err
	}
	c.t.Fatalf("etcd %d: not ready after %v: %v\n%s", i, readyTimeout, last, c.tail(i))
}

// tail is the end of a member's log, for failures.
func (c *Cluster) tail(i int) string {
	text, _ := os.ReadFile(filepath.Join(c.members[i].dir, "log"))
	return string(text[max(0, len(text)-2000):])
}

// Start runs a member again, on its ports and data, and returns once it serves.
func (c *Cluster) Start(i int) {
	c.t.Helper()
	c.Launch(i)
	c.await(i)
}

// Launch runs a member again without waiting for it: alone it may lack a quorum.
func (c *Cluster) Launch(i int) {
	c.t.Helper()
	if c.members[i].cmd != nil {
		c.t.Fatalf("etcd %d: already running", i)
	}
	c.launch(i)
}

// Kill ends a member as a crash would (kill -9). It returns when the process is gone.
func (c *Cluster) Kill(i int) { c.t.Helper(); c.finish(i, syscall.SIGKILL) }

// Stop ends a member in order (SIGTERM). It returns when the process is gone.
func (c *Cluster) Stop(i int) { c.t.Helper(); c.finish(i, syscall.SIGTERM) }

// Pause freezes a member: its sockets stay open, nothing answers. It returns when every
// thread has stopped; the signal alone leaves those that run a moment to answer.
func (c *Cluster) Pause(i int) {
	c.t.Helper()
	c.signal(i, syscall.SIGSTOP)
	for deadline := time.Now().Add(30 * time.Second); !stopped(c.members[i].cmd.Process.Pid); {
		if time.Now().After(deadline) {
			c.t.Fatalf("etcd %d: does not stop", i)
		}
		time.Sleep(time.Millisecond)
	}
}

// stopped reports whether all threads of a process are. Where the system doesn't say, it
// gives them the time to.
func stopped(pid int) bool {
	stats, _ := filepath.Glob(fmt.Sprintf("/proc/%d/task/*/stat", pid))
	if len(stats) == 0 {
		time.Sleep(100 * time.Millisecond)
		return true
	}
	for _, path := range stats {
		text, err := os.ReadFile(path)
		_, state, ok := strings.Cut(string(text), ") ")
		if err == nil && ok && !strings.HasPrefix(state, "T") {
			return false
		}
	}
	return true
}

// Resume thaws a frozen member.
func (c *Cluster) Resume(i int) { c.t.Helper(); c.signal(i, syscall.SIGCONT) }

// signal sends one to a running member.
func (c *Cluster) signal(i int, s syscall.Signal) {
	c.t.Helper()
	if c.members[i].cmd == nil {
		c.t.Fatalf("etcd %d: not running", i)
	}
	if err := c.members[i].cmd.Process.Signal(s); err != nil {
		c.t.Fatalf("etcd %d: %v: %v", i, s, err)
	}
}

// finish sends the signal and waits for the end.
func (c *Cluster) finish(i int, s syscall.Signal) {
	c.t.Helper()
	c.signal(i, s)
	m := c.members[i]
	_ = m.cmd.Wait() // "signal: killed" is what was asked for
	_ = m.log.Close()
	m.cmd = nil
}

// end kills what still runs, and shows the logs of a failed test.
func (c *Cluster) end() {
	for i, m := range c.members {
		if m.cmd != nil {
			_ = m.cmd.Process.Kill()
			_ = m.cmd.Wait()
			_ = m.log.Close()
			m.cmd = nil
		}
		if c.t.Failed() {
			c.t.Logf("etcd %d, end of its log:\n%s", i, c.tail(i))
		}
	}
}

// Isolate cuts member i off the other members, in both directions; clients still reach it.
func (c *Cluster) Isolate(i int) {
	c.t.Helper()
	st, err := c.status(i)
	if err != nil {
		c.t.Fatalf("etcd %d: %v", i, err)
	}
	for j, m := range c.members {
		if j == i {
			m.cable.Cut()
		} else {
			m.cable.Bar(fmt.Sprintf("X-Server-From: %x\r\n", st.Header.MemberId))
		}
	}
}

// Mute keeps from the other members whatever member i says; it hears them still. So it
// believes that it is one of the cluster, and gets nothing done.
func (c *Cluster) Mute(i int) { c.members[i].cable.Hold() }

// Reconnect ends Isolate and Mute.
func (c *Cluster) Reconnect() {
	for _, m := range c.members {
		m.cable.Release()
		m.cable.Mend()
	}
}
