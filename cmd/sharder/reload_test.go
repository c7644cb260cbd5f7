package main

import (
	"context"
	"errors"
	"io"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/sourcegraph/conc"

	"github.com/sharder/sharder/conf"
	"github.com/sharder/sharder/integration/ports"
)

// nameServer says its name on every connection.
func nameServer(t *testing.T, name string) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	var wg conc.WaitGroup
	wg.Go(func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			wg.Go(func() {
				defer c.Close()
				_, _ = io.WriteString(c, name)
				_, _ = io.Copy(c, c)
			})
		}
	})
	t.Cleanup(func() { _ = l.Close(); wg.Wait() })
	return l.Addr().String()
}

// whoAnswers dials and gives who is there.
func whoAnswers(t *testing.T, addr string) (net.Conn, string) {
	t.Helper()
	c, err := net.Dial("tcp", addr)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = c.Close() })
	who := make([]byte, 1)
	_ = c.SetReadDeadline(time.Now().Add(30 * time.Second))
	if _, err := io.ReadFull(c, who); err != nil {
		return c, ""
	}
	return c, string(who)
}

// rewrite puts a new file in the place of an older one: whoever reads has one or the other, whole.
func rewrite(t *testing.T, file, text string) {
	t.Helper()
	next := file + ".next"
	if err := os.WriteFile(next, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Rename(next, file); err != nil {
		t.Fatal(err)
	}
}

func TestAChangedFileIsUsedWithoutDroppingAConnection(t *testing.T) {
	a, b, listen := nameServer(t, "a"), nameServer(t, "b"), ports.Of(t)
	file := filepath.Join(t.TempDir(), "gateways.toml")
	write := func(endpoint, more string) {
		t.Helper()
		text := "drain_timeout = \"100ms\"\n[gateways.g]\nlisten = \"" + listen + "\"\nendpoints = [\"" + endpoint + "\"]\n" + more
		rewrite(t, file, text)
	}
	write(a, "")
	cfg, err := conf.Load(file)
	if err != nil {
		t.Fatal(err)
	}
	var log lines
	seen := 0
	ctx, stop := context.WithCancel(context.Background())
	var wg conc.WaitGroup
	defer wg.Wait()
	defer stop()
	wg.Go(func() {
		if err := serveGateways(ctx, cfg, io.Discard, slog.New(slog.NewTextHandler(&log, nil))); err != nil {
			t.Error(err)
		}
	})
	within(t, 30*time.Second, func() error {
		c, err := net.Dial("tcp", listen)
		if err == nil {
			_ = c.Close()
		}
		return err
	})
	old, who := whoAnswers(t, listen)
	if who != "a" {
		t.Fatalf("%q answers", who)
	}
	said := func(want string) { // behind what it said before
		t.Helper()
		within(t, 30*time.Second, func() error {
			text := log.String()
			at := strings.Index(text[seen:], want)
			if at < 0 {
				return errors.New("it has said: " + text[seen:])
			}
			seen += at + len(want)
			return nil
		})
	}
	write(b, "strategy = \"wrong\"\n")
	said("the file has a mistake")
	if _, who := whoAnswers(t, listen); who != "a" {
		t.Errorf("with a mistake in the file %q answers", who)
	}
	write(b, "connections = 5\n")
	if err := syscall.Kill(os.Getpid(), syscall.SIGHUP); err != nil {
		t.Fatal(err)
	}
	said("reload: done\" keys=gateways.g.endpoints")
	said("this needs a restart\" key=gateways.g.connections line=5")
	within(t, 30*time.Second, func() error {
		if _, who := whoAnswers(t, listen); who != "b" {
			return errors.New(who + " answers")
		}
		return nil
	})
	if _, err := old.Write([]byte("x")); err != nil {
		t.Error(err)
	}
	_ = old.SetReadDeadline(time.Now().Add(30 * time.Second))
	if _, err := io.ReadFull(old, make([]byte, 1)); err != nil {
		t.Errorf("the open connection was dropped: %v", err)
	}
	_ = old.Close()
	write(a, "connections = 5\n")
	said("reload: done\" keys=gateways.g.endpoints")
	said("this needs a restart\" key=gateways.g.connections line=5 running=\"\" file=5")
	if err := syscall.Kill(os.Getpid(), syscall.SIGHUP); err != nil {
		t.Fatal(err)
	}
	said("the file says what it said before")
}

func TestWhatCouldNotBeDoneIsTriedAgainAndCounted(t *testing.T) {
	file := filepath.Join(t.TempDir(), "c.toml")
	write := func(text string) {
		t.Helper()
		if err := os.WriteFile(file, []byte("[shards.a]\nendpoints = [\"h:1\"]\n"+text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	write("")
	r := newReloads(file, slog.New(slog.DiscardHandler))
	calls, fail := 0, errors.New("not now")
	r.on(func(*conf.Config) error { calls++; return fail }, "shards.*.timeout", "shards.*.health_interval")
	write("timeout = \"5s\"\nhealth_interval = \"2s\"\n")
	r.look(false)
	if ok, _, _ := r.status(); ok || calls != 1 {
		t.Errorf("ok %v after %d calls", ok, calls)
	}
	fail = nil
	r.look(false) // nothing has changed, and nobody asks
	r.look(true)
	if ok, _, pending := r.status(); !ok || calls != 2 || pending != 0 {
		t.Errorf("ok %v after %d calls, %d pending", ok, calls, pending)
	}
	write("username = \"u\"\n")
	r.look(false)
	if ok, _, _ := r.status(); ok || calls != 2 {
		t.Errorf("a file with a mistake: ok %v after %d calls", ok, calls)
	}
	write("[limits]\nrequests = 5\n")
	r.look(false)
	if ok, _, pending := r.status(); !ok || calls != 3 || pending != 1 {
		t.Errorf("ok %v after %d calls, %d pending", ok, calls, pending)
	}
	write("")
	r.look(false)
	if ok, _, pending := r.status(); !ok || calls != 3 || pending != 0 {
		t.Errorf("as in the beginning: ok %v after %d calls, %d pending", ok, calls, pending)
	}
	if err := os.Remove(file); err != nil {
		t.Fatal(err)
	}
	r.look(false)
	if ok, _, _ := r.status(); ok {
		t.Error("a file that is gone is all right")
	}
}
