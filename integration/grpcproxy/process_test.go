package grpcproxy_test

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"os"
	"os/signal"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"go.uber.org/zap"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	clientv3 "go.etcd.io/etcd/client/v3"

	"github.com/sharder/sharder/integration/certs"
	"github.com/sharder/sharder/integration/etcdproc"
	"github.com/sharder/sharder/integration/etcdtest"
	"github.com/sharder/sharder/integration/harness"
	"github.com/sharder/sharder/integration/ports"
)

// secure is a cluster that speaks TLS and wants certificates, and those for what stands in
// front of it: a harness of etcd gives a proxy three files for either side.
type secure struct {
	cluster        *etcdproc.Cluster
	members, front *certs.Authority
	near           []string // flags towards clients
	far            []string // flags towards members
	client         *tls.Config
}

func newSecure(t *testing.T, args ...string) *secure {
	t.Helper()
	s := &secure{members: certs.New(t, "members"), front: certs.New(t, "front")}
	crt, key := s.members.Issue("member")
	own, ownKey := s.members.Issue("proxy")
	s.cluster = etcdproc.Start(t, 1, etcdproc.WithTLS(s.members.File, crt, key, clientv3.Config{TLS: config(t, s.members, own, ownKey)}), etcdproc.WithArgs(args...))
	s.far = []string{"--endpoints", s.cluster.Endpoint(0), "--cert", own, "--key", ownKey, "--cacert", s.members.File}
	crt, key = s.front.Issue("front")
	s.near = []string{"--cert-file", crt, "--key-file", key, "--trusted-ca-file", s.front.File}
	own, ownKey = s.front.Issue("client")
	s.client = config(t, s.front, own, ownKey)
	return s
}

// config is how somebody with a certificate reaches who has one of an authority.
func config(t *testing.T, a *certs.Authority, crt, key string) *tls.Config {
	t.Helper()
	pool := x509.NewCertPool()
	text, err := os.ReadFile(a.File)
	if err != nil || !pool.AppendCertsFromPEM(text) {
		t.Fatal("no authority", err)
	}
	c := &tls.Config{RootCAs: pool, MinVersion: tls.VersionTLS12}
	if crt != "" {
		pair, err := tls.LoadX509KeyPair(crt, key)
		if err != nil {
			t.Fatal(err)
		}
		c.Certificates = []tls.Certificate{pair}
	}
	return c
}

// start runs the proxy on a free address until the test ends.
func (s *secure) start(t *testing.T, flags ...string) (addr string, p *harness.Process) {
	t.Helper()
	addr = ports.Of(t)
	args := append([]string{harness.Binary(t, harness.SharderPackage), "grpc-proxy", "start", "--listen-addr", addr, "--advertise-client-url", addr}, s.far...)
	p = harness.Run(t, append(args, flags...)...)
	p.WaitLog(startBound, ready)
	return addr, p
}

// dial is a client over TLS; its first request, which has to be good, is made.
func dial(t *testing.T, addr string, c *tls.Config) (*clientv3.Client, error) {
	t.Helper()
	client, err := clientv3.New(clientv3.Config{Endpoints: []string{"https://" + addr}, TLS: c, DialTimeout: soon, Logger: zap.NewNop()})
	if err != nil {
		return nil, err
	}
	t.Cleanup(func() { client.Close() })
	ctx, cancel := context.WithTimeout(t.Context(), soon)
	defer cancel()
	return client, second(client.Get(ctx, "k"))
}

// The life of a proxy as a harness of etcd leads it: the flags of grpc-proxy, TLS on both
// sides, the line that says that it has started, requests, and a signal, behind which it ends
// well and leaves the port to the next.
func TestAHarnessOfEtcdRunsIt(t *testing.T) {
	t.Parallel()
	s := newSecure(t)
	for range 2 {
		addr, p := s.start(t, append(s.near, "--data-dir", t.TempDir(), "--resolver-prefix", "proxies", "--resolver-ttl", "5")...)
		c, err := dial(t, addr, s.client)
		if err != nil {
			t.Fatal(err)
		}
		w := c.Watch(t.Context(), "k", withCreated...)
		<-w
		if _, err := c.Put(t.Context(), "k", "v"); err != nil {
			t.Fatal(err)
		}
		if m := <-w; len(m.Events) != 1 {
			t.Fatalf("%v %v", m, m.Err())
		}
		p.Signal(syscall.SIGTERM)
		if code := p.Wait(startBound); code != 0 {
			t.Fatalf("it ended with %d", code)
		}
		// grpc-proxy leaves its registration to the end of its TTL.
		r, err := s.cluster.Client().Get(t.Context(), "proxies/", clientv3.WithPrefix())
		if err != nil || len(r.Kvs) != 0 {
			t.Errorf("what it leaves: %v %v", r, err)
		}
	}
}

// A proxy that can't start says why, by the flag, and ends with 2, or with 1 if it is not the
// flags.
func TestAProxyThatCanNotStartSaysWhy(t *testing.T) {
	t.Parallel()
	sharder := harness.Binary(t, harness.SharderPackage)
	taken := open(t, straight, &probe{}).addr
	for name, c := range map[string]struct {
		flags []string
		code  int
		want  string
	}{
		"a flag that there is not": {[]string{"--colour", "red"}, 2, "colour"},
		"no such certificate":      {[]string{"--cert-file", "/nowhere", "--key-file", "/nowhere"}, 1, "/nowhere"},
		"a key alone":              {[]string{"--key-file", "/nowhere"}, 2, "--key-file"},
		"an address in use":        {[]string{"--listen-addr", taken}, 1, "another address is set with --listen-addr)"},
		"metrics in use":           {[]string{"--metrics-addr", "http://" + taken}, 1, "another address is set with --metrics-addr)"},
		"almost a flag":            {[]string{"--endpoint", "127.0.0.1:1"}, 2, "unknown flag: --endpoint; did you mean --endpoints?"},
		"a flag without a value":   {[]string{"--namespace"}, 2, "flag needs an argument: --namespace"},
		"a time without a unit":    {[]string{"--grpc-keepalive-interval", "10"}, 2, "invalid argument \"10\" for \"--grpc-keepalive-interval\" flag: want a time with its unit"},
		"bytes with a unit":        {[]string{"--max-send-bytes", "10MiB"}, 2, "\"--max-send-bytes\" flag: want a whole number"},
		"a switch behind a blank":  {[]string{"--debug", "true"}, 2, "--debug=true"},
		"no endpoints":             {[]string{"--endpoints", ""}, 2, "--endpoints: there is none"},
		"a CA alone":               {[]string{"--trusted-ca-file", "ca"}, 2, "--trusted-ca-file: there is no certificate"},
		"no version left":          {[]string{"--tls-min-version", "TLS1.3", "--tls-max-version", "TLS1.2"}, 2, "--tls-max-version: no version is left"},
		"suites of no version":     {[]string{"--tls-min-version", "TLS1.3", "--listen-cipher-suites", "TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256"}, 2, "--listen-cipher-suites: "},
		"too many streams":         {[]string{"--max-concurrent-streams", "5000000000"}, 2, "--max-concurrent-streams: "},
		"a certificate alone":      {[]string{"--cert", "c"}, 2, "--cert: there is no --key"},
		"nowhere to be registered": {[]string{"--listen-addr", "0.0.0.0:0", "--resolver-prefix", "p", "--resolver-ttl", "5"}, 2, "--advertise-client-url: there is no address"},
		"a prefix alone":           {[]string{"--resolver-prefix", "p"}, 2, "--resolver-ttl"},
		"a TTL alone":              {[]string{"--resolver-ttl", "5"}, 2, "--resolver-prefix"},
		"an endpoint that is none": {[]string{"--endpoints", "a b"}, 2, "--endpoints"},
		"a version of no TLS":      {[]string{"--cert-file", "c", "--key-file", "k", "--tls-min-version", "TLS1.1"}, 2, "--tls-min-version"},
		"https without any":        {[]string{"--metrics-addr", "https://127.0.0.1:0"}, 2, "--metrics-addr: "},
		"an argument":              {[]string{"now"}, 2, "now"},
		"leases for reads":         {[]string{"--experimental-leasing-prefix", "l/"}, 2, "--experimental-leasing-prefix"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			args := []string{sharder, "grpc-proxy", "start", "--listen-addr", ports.Of(t)}
			if !slices.Contains(c.flags, "--endpoints") {
				args = append(args, "--endpoints", "127.0.0.1:1")
			}
			res := harness.Command(t, append(args, c.flags...)...)
			if res.Code != c.code || !strings.Contains(res.Stderr, c.want) || strings.Count(res.Stderr, "\n") > 3 {
				t.Errorf("code %d, want %d and %q in\n%s", res.Code, c.code, c.want, res.Stderr)
			}
		})
	}
}

// What --print-config prints is a configuration, and sharder does with it what it does with the
// flags.
func TestThePrintedConfigurationIsTheProxy(t *testing.T) {
	t.Parallel()
	s := newSecure(t)
	addr, metrics := ports.Of(t), ports.Of(t)
	flags := append(s.far, s.near...)
	flags = append(flags, "--listen-addr", addr, "--metrics-addr", "http://"+metrics, "--enable-pprof", "--max-concurrent-streams", "7",
		"--tls-min-version", "TLS1.3", "--grpc-keepalive-min-time", "1s", "--advertise-client-url", "https://"+addr)
	printed := harness.Command(t, append([]string{harness.Binary(t, harness.SharderPackage), "grpc-proxy", "start", "--print-config"}, flags...)...)
	if printed.Code != 0 {
		t.Fatal(printed.Stderr)
	}
	file := filepath.Join(t.TempDir(), "proxy.toml")
	if err := os.WriteFile(file, []byte(printed.Stdout), 0o600); err != nil {
		t.Fatal(err)
	}
	looks := func(args ...string) []string {
		p := harness.Run(t, append([]string{harness.Binary(t, harness.SharderPackage)}, args...)...)
		var saw []string
		var c *clientv3.Client
		if !eventually(t.Context(), func() (ok bool) { var err error; c, err = dial(t, addr, s.client); return err == nil }) {
			t.Fatalf("%q does not serve", args)
		}
		_, err := c.Put(t.Context(), "k", "v")
		saw = append(saw, failure(err))
		list, err := c.MemberList(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		saw = append(saw, fmt.Sprint(list.Members[0].ClientURLs))
		for _, path := range []string{"/health", "/metrics", "/readyz"} {
			code, _, err := get("http://" + metrics + path)
			saw = append(saw, fmt.Sprint(path, code, err))
		}
		old := s.client.Clone()
		old.MaxVersion = tls.VersionTLS12
		_, err = tls.Dial("tcp", addr, old)
		saw = append(saw, fmt.Sprint("TLS 1.2 refused: ", err != nil))
		p.Signal(syscall.SIGTERM)
		return append(saw, fmt.Sprint("code ", p.Wait(startBound)))
	}
	want := looks(append([]string{"grpc-proxy", "start"}, flags...)...)
	if d := diff(want, looks("--conf", file)); d != "" || want[0] != "ok" || want[len(want)-1] != "code 0" {
		t.Errorf("with the flags:\n%s\nwith what is printed:\n%s", strings.Join(want, "\n"), d)
	}
}

// The proxy ends well while clients have requests and streams open, and tells them so that they
// go elsewhere. grpc-proxy dies in the middle.
func TestClientsAreSentAwayWhenItEnds(t *testing.T) {
	t.Parallel()
	d := open(t, sharder, &probe{})
	w, err := d.watched(t.Context(), ofK(0))
	if err != nil {
		t.Fatal(err)
	}
	s, err := d.lease().LeaseKeepAlive(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if _, err := keepAlive(s, 1); err != nil {
		t.Fatal(err)
	}
	d.proxy.Signal(syscall.SIGTERM)
	if code := d.proxy.Wait(startBound); code != 0 {
		t.Errorf("it ended with %d", code)
	}
	if _, err := w.next(soon); status.Code(err) != codes.Unavailable {
		t.Errorf("the watch: %v", err)
	}
	if _, err := s.Recv(); status.Code(err) != codes.Unavailable {
		t.Errorf("the keep-alive: %v", err)
	}
}

// timeout(1), and who else ends a group of processes, sends two signals at once: they are one.
// Another one later ends the process, as it does without.
func TestTwoSignalsAtOnceAreOne(t *testing.T) {
	t.Parallel()
	d := open(t, sharder, &probe{cables: true})
	held := time.Now()
	put := d.putUnderWay()
	began := time.Now()
	d.proxy.Signal(syscall.SIGTERM)
	d.proxy.WaitLog(soon, "draining")
	d.proxy.Signal(syscall.SIGTERM)
	if took := time.Since(began); took > 500*time.Millisecond {
		t.Skipf("the second signal came only after %v", took)
	}
	for _, w := range d.ways {
		w.Release()
	}
	waited := time.Since(held)
	if err := <-put; err != nil && waited < 1500*time.Millisecond { // behind two probes of a second the member is left
		t.Errorf("the put that was under way: %v", err)
	}
	if code := d.proxy.Wait(startBound); code != 0 {
		t.Errorf("it ended with %d", code)
	}
}

func TestASignalLaterEndsTheDrain(t *testing.T) {
	t.Parallel()
	d := open(t, sharder, &probe{cables: true})
	put := d.putUnderWay()
	began := time.Now()
	for ended := false; !ended; {
		d.proxy.Signal(syscall.SIGTERM)
		select {
		case <-d.proxy.Done():
			ended = true
		case <-time.After(50 * time.Millisecond):
		}
	}
	if code, took := d.proxy.Wait(startBound), time.Since(began); code == 0 || took > 8*time.Second {
		t.Errorf("it ended with %d after %v", code, took)
	}
	if err := <-put; err == nil {
		t.Error("the put that nobody could answer was answered")
	}
}

// A terminal that goes sends SIGHUP: what was started from it ends, as etcd's proxies do, and as a
// harness relies on that gives its processes terminals.
func TestAHangupEndsWhatRunsFromFlags(t *testing.T) {
	t.Parallel()
	etcd := etcdproc.Start(t, 1).Endpoint(0)
	for _, args := range [][]string{
		{"grpc-proxy", "start", "--endpoints", etcd},
		{"gateway", "start", "--endpoints", strings.TrimPrefix(etcd, "http://")},
	} {
		t.Run(args[0], func(t *testing.T) {
			t.Parallel()
			p, _ := hangingUp(t, "exec \"$@\"", args...)
			if code := p.Wait(startBound); code != 0 {
				t.Errorf("it ended with %d", code)
			}
		})
		t.Run(args[0]+" under nohup", func(t *testing.T) {
			t.Parallel()
			p, addr := hangingUp(t, "trap '' HUP; exec \"$@\"", args...)
			select { // an idle proxy that drains ends at once
			case <-p.Done():
				t.Fatal("it ended")
			case <-time.After(time.Second):
			}
			if err := second(etcdtest.Client(t, addr).Get(t.Context(), "k")); err != nil {
				t.Error(err)
			}
		})
	}
}

// hangingUp starts sharder by a line of shell that runs its arguments, and sends it a SIGHUP when
// it serves.
func hangingUp(t *testing.T, line string, args ...string) (p *harness.Process, addr string) {
	t.Helper()
	// The tests themselves may run under nohup: what this process catches, its children don't ignore.
	caught := make(chan os.Signal, 1)
	signal.Notify(caught, syscall.SIGHUP)
	t.Cleanup(func() { signal.Stop(caught) })
	addr = ports.Of(t)
	args = append(args, "--listen-addr", addr)
	p = harness.Run(t, append([]string{"sh", "-c", line, "sh", harness.Binary(t, harness.SharderPackage)}, args...)...)
	p.WaitLog(startBound, map[string]string{"grpc-proxy": ready, "gateway": "ready to proxy client requests"}[args[0]])
	p.Signal(syscall.SIGHUP)
	return p, addr
}

// putUnderWay has a put wait inside the proxy until the cables let it pass, and gives what becomes
// of it.
func (d *door) putUnderWay() chan error {
	d.t.Helper()
	c := d.client()
	if _, err := c.Put(d.t.Context(), "k", "v"); err != nil {
		d.t.Fatal(err)
	}
	for _, w := range d.ways {
		w.Hold()
	}
	put := make(chan error, 1)
	go func() { put <- second(c.Put(d.t.Context(), "k", "w")) }()
	if !eventually(d.t.Context(), func() bool {
		_, text, err := get("http://" + d.addr + "/metrics")
		return err == nil && strings.Contains(text, "\nsharder_door_inside 1\n")
	}) {
		d.t.Fatal("the put is not under way")
	}
	return put
}

// A gateway says in etcd's words, and where etcd says it, that it is ready: scripts wait for it.
func TestAGatewaySaysWhenItIsReady(t *testing.T) {
	t.Parallel()
	d := open(t, straight, &probe{members: 3})
	var all []string
	for _, e := range d.members() {
		all = append(all, " "+e+"/v3") // a blank and a path are nothing to it
	}
	addr := ports.Of(t)
	p := harness.Run(t, harness.Binary(t, harness.SharderPackage), "gateway", "start", "--endpoints", strings.Join(all, ","), "--listen-addr", addr, "--insecure-discovery")
	p.WaitLog(startBound, "ready to proxy client requests")
	for range 6 { // so that each member has its turn
		c := d.clientTo(addr)
		d.cluster.Despite(func() error { return second(c.Put(t.Context(), "k", "v")) })
	}
	if text := p.Stderr.String(); strings.Contains(text, "does not answer") || !strings.Contains(text, "--insecure-discovery says nothing") {
		t.Errorf("it says:\n%s", text)
	}
	p.Signal(syscall.SIGTERM)
	if code := p.Wait(startBound); code != 0 {
		t.Errorf("it ended with %d", code)
	}
}
