package main

import (
	"context"
	"crypto/tls"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"go.uber.org/zap"

	"github.com/sharder/sharder/integration/certs"
	"github.com/sharder/sharder/integration/etcdtest"
	"github.com/sharder/sharder/integration/ports"
	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	clientv3 "go.etcd.io/etcd/client/v3"
)

// listening runs a sharder with its own list of addresses.
func listening(t *testing.T, addresses []string, toml string) *sharderRun {
	t.Helper()
	return startAll(t, fmt.Sprintf("listen = [\"%s\"]\n%s", strings.Join(addresses, `", "`), toml))
}

// memberAt asks for the members at an endpoint as users write it, and gives the URL of the first.
func memberAt(t *testing.T, endpoint string, secure *tls.Config) (url string, err error) {
	t.Helper()
	return memberWithin(t, 30*time.Second, endpoint, secure)
}

// memberWithin is memberAt with a bound: etcd's client tries for as long as it may where it is turned away.
func memberWithin(t *testing.T, d time.Duration, endpoint string, secure *tls.Config) (url string, err error) {
	t.Helper()
	c, err := clientv3.New(clientv3.Config{Endpoints: []string{endpoint}, TLS: secure, DialTimeout: d, Logger: zap.NewNop()})
	if err != nil {
		return "", err
	}
	defer c.Close()
	ctx, cancel := context.WithTimeout(t.Context(), d)
	defer cancel()
	if _, err := c.Put(ctx, "k", "v"); err != nil {
		return "", err
	}
	list, err := pb.NewClusterClient(c.ActiveConnection()).MemberList(ctx, &pb.MemberListRequest{})
	if err != nil {
		return "", err
	}
	return list.Members[0].ClientURLs[0], nil
}

// Every form of an address serves gRPC and HTTP, each as its scheme says, all at once. A
// client is told the URL by which it came.
func TestEveryFormOfAnAddressIsServed(t *testing.T) {
	dir := t.TempDir()
	t.Chdir(dir) // for the socket in the working directory
	ca := certs.New(t, "ours")
	cert, key := ca.Issue("server")
	secure := mustTLS(t, ca.File, "", "")
	bare, plain, over := ports.Of(t), ports.Of(t), ports.Of(t)
	socket, secret := filepath.Join(dir, "plain.sock"), filepath.Join(dir, "secure.sock")
	urls := []string{bare, "http://" + plain, "https://" + over + "/", "unix://" + socket, "unixs://" + secret, "unix://localhost:2379"}
	r := listening(t, urls, fmt.Sprintf("[tls]\ncert = %q\nkey = %q\n[shards.a]\nendpoints = [%q]\n", cert, key, etcdtest.Start(t).Endpoint))
	unverified := secure.Clone()
	unverified.InsecureSkipVerify = true // the certificate is not for the name of a file
	for _, c := range []struct {
		endpoint, told string
		secure         *tls.Config
	}{
		{"https://" + bare, "https://" + bare, secure},
		{"http://" + plain, "http://" + plain, nil},
		{"https://" + over, "https://" + over, secure},
		{"unix://" + socket, "unix://" + socket, nil},
		{"unixs://" + secret, "unixs://" + secret, unverified},
		{"unix://localhost:2379", "unix://localhost:2379", nil},
	} {
		within(t, 30*time.Second, func() error {
			told, err := memberAt(t, c.endpoint, c.secure)
			if err != nil {
				return fmt.Errorf("%s: %w", c.endpoint, err)
			}
			if told != c.told {
				return fmt.Errorf("at %s a client is told of %s", c.endpoint, told)
			}
			return nil
		})
	}
	for path, over := range map[string]*tls.Config{socket: nil, secret: unverified, "localhost:2379": nil} {
		if text, err := fetchFrom(path, over); err != nil || text != "ok\n" {
			t.Errorf("%s: %q %v", path, text, err)
		}
	}
	for _, wrong := range []string{"http://" + bare, "http://" + over, "unix://" + secret} {
		if told, err := memberWithin(t, 3*time.Second, wrong, nil); err == nil {
			t.Errorf("let in at %s: %s", wrong, told)
		}
	}
	if err := r.end(); err != nil {
		t.Fatal(err)
	}
	if out := r.out.String(); !strings.Contains(out, fmt.Sprintf("serving the etcd API on %s, %s, %s, unix://%s, unixs://%s, unix://localhost:2379\n", bare, plain, over, socket, secret)) {
		t.Errorf("it said %s", out)
	}
	for _, path := range []string{socket, secret, "localhost:2379"} {
		if _, err := os.Lstat(path); !os.IsNotExist(err) {
			t.Errorf("%s is still there: %v", path, err)
		}
	}
}

// fetchFrom asks for /livez on a socket.
func fetchFrom(path string, over *tls.Config) (string, error) {
	tr := &http.Transport{DisableKeepAlives: true, TLSClientConfig: over, DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
		return new(net.Dialer).DialContext(ctx, "unix", path)
	}}
	scheme := map[bool]string{true: "http", false: "https"}[over == nil]
	resp, err := (&http.Client{Transport: tr, Timeout: 30 * time.Second}).Get(scheme + "://sharder/livez")
	if err != nil {
		return "", err
	}
	defer resp.Body.Close()
	text, err := io.ReadAll(resp.Body)
	return string(text), err
}

// Two sharders can't have one socket, and one that was killed keeps nobody from it.
func TestASocketIsOneShardersOnly(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "s")
	l, err := net.Listen("unix", path)
	if err != nil {
		t.Fatal(err)
	}
	l.(*net.UnixListener).SetUnlinkOnClose(false)
	_ = l.Close()
	shard := fmt.Sprintf("[shards.a]\nendpoints = [%q]\n", etcdtest.Start(t).Endpoint)
	first := listening(t, []string{"unix://" + path}, shard)
	within(t, 30*time.Second, func() error { _, err := memberAt(t, "unix://"+path, nil); return err })
	second := listening(t, []string{"unix://" + path}, shard)
	refused(t, second, "unix://"+path, "somebody listens there already", "test.toml")
	if told, err := memberAt(t, "unix://"+path, nil); err != nil {
		t.Errorf("%q %v", told, err)
	}
	if err := first.end(); err != nil {
		t.Error(err)
	}
}

func TestTheSchemeOfAConnectionIsThatOfItsListener(t *testing.T) {
	listeners := parsed(t, `listen = ["127.0.0.1:1", "http://:2", "http://10.0.0.1:3", "https://:4", "unix:///s"]`+"\ntls.auto = true\nshards.a.endpoints = [\"10.0.0.1:9\"]\n").Listeners()
	tell := schemes(listeners)
	for local, want := range map[string]string{"127.0.0.1:1": "https", "10.0.0.1:2": "http", "10.0.0.1:3": "http", "[::1]:4": "https"} {
		a, err := net.ResolveTCPAddr("tcp", local)
		if err != nil {
			t.Fatal(err)
		}
		if have := tell(a); have != want {
			t.Errorf("%s: %s", local, have)
		}
	}
	if have := tell(&net.UnixAddr{Name: "/s", Net: "unix"}); have != "http" {
		t.Errorf("the socket: %s", have)
	}
}
